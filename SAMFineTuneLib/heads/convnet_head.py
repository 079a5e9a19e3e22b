"""The convolutional head of Hu et al. 2023 (arXiv:2306.13731), also that of LoRaMedNet.

Two 1 × 1 convolutions widen the embedding to 64 · 2^depth channels. Then come as many blocks as the
depth says, of two 3 × 3 convolutions each, and each halves the channels: the first two by a
transposed convolution that doubles the resolution, further ones by their second convolution. A
3 × 3 and a 1 × 1 convolution give the logits, four times as fine as the embedding. (In their text
the first stages upsample, in their code the last two, which differs in time and not in
parameters.)

Where an encoder has high-resolution features, such as the starter's, they are added behind the two
upsamplings, as in the U-Net that the head is modelled on. Segment Anything's encoders have none.

All weights are random at first, with the deviation that keeps the scale of features behind
rectifiers (He et al. 2015): there are up to thirteen convolutions without a normalisation, and
PyTorch's usual deviation would let the features of an image fade.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from SAMFineTuneLib.heads.head import ClassMasks
from SAMFineTuneLib.heads.names import HEAD_DEPTHS
from SAMFineTuneLib.networks.adaptation_sites import AdapterSite, LoraSite
from SAMFineTuneLib.networks.staged_encoder import FeatureState

_LAST_CHANNELS = 64
_UPSAMPLINGS = 2


class ConvNetHead(nn.Module):
    """Convolutions from the embedding to class logits.

    Args:
        channels: C of the embedding.
        skip_channels: of the encoder's high-resolution features, finest first.
        structures: number of classes without background.
        depth: how many blocks there are, 2 to 4.

    Raises:
        ValueError: another depth.
    """

    def __init__(
        self, channels: int, skip_channels: Sequence[int], structures: int, depth: int
    ) -> None:
        super().__init__()
        if depth not in HEAD_DEPTHS:
            raise ValueError(f"depth {depth} is not from {HEAD_DEPTHS[0]} to {HEAD_DEPTHS[-1]}")
        widths = [_LAST_CHANNELS * 2**number for number in range(depth, 0, -1)]
        self.input_block = nn.Sequential(
            *_convolution(channels, widths[0], 1), *_convolution(widths[0], widths[0], 1)
        )
        self.blocks = nn.ModuleList(
            _block(width, upsamples=number < _UPSAMPLINGS) for number, width in enumerate(widths)
        )
        self.skips = nn.ModuleList(
            nn.Conv2d(own, width // 2, 1)
            for own, width in zip(reversed(skip_channels), widths, strict=False)
        )
        self.final = nn.Sequential(
            nn.Conv2d(_LAST_CHANNELS, _LAST_CHANNELS, 3, padding=1),
            nn.Conv2d(_LAST_CHANNELS, structures + 1, 1),
        )
        for module in (self.input_block, self.blocks):
            _give_scale(module)

    def adapter_sites(self) -> list[AdapterSite]:
        """None: the head trains as a whole."""
        return []

    def lora_sites(self) -> list[LoraSite]:
        """None: the head trains as a whole."""
        return []

    def forward(
        self, features: FeatureState, positions: Tensor, dense_prompt: Tensor
    ) -> ClassMasks:
        """The masks of the classes; see `Head`. Positions and the dense prompt are not used."""
        x = self.input_block(features.x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number < len(self.skips):
                x = x + self.skips[number](features.skips[-1 - number])
        return ClassMasks(self.final(x))


def _convolution(channels_in: int, channels: int, side: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels_in, channels, side, padding=side // 2), nn.ReLU()


def _block(width: int, upsamples: bool) -> nn.Sequential:
    """From `width` channels to half as many."""
    if not upsamples:
        return nn.Sequential(*_convolution(width, width, 3), *_convolution(width, width // 2, 3))
    return nn.Sequential(
        *_convolution(width, width, 3),
        *_convolution(width, width, 3),
        nn.ConvTranspose2d(width, width // 2, 2, stride=2),
    )


def _give_scale(module: nn.Module) -> None:
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.kaiming_normal_(each.weight, nonlinearity="relu")
        elif isinstance(each, nn.ConvTranspose2d):
            # Its windows do not overlap, and no rectifier follows.
            nn.init.normal_(each.weight, std=each.in_channels**-0.5)
        if isinstance(each, nn.Conv2d | nn.ConvTranspose2d) and each.bias is not None:
            nn.init.zeros_(each.bias)
