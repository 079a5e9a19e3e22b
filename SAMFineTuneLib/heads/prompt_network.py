"""A network that looks at the image and takes the place of prompts (AutoSAM's g).

Shaharabany et al. 2023, "AutoSAM: Adapting SAM to Medical Images by Overloading the Prompt
Encoder" (arXiv:2306.06370). Taken from there:

* Segment Anything's encoder and mask decoder stay as they are; there are no sparse prompts, and the
  network's output, behind tanh, is what the prompt encoder would add to the embedding. The
  decoder's single mask is the result.
* The network is a convolutional encoder-decoder, and sees the image with half the side of Segment
  Anything's input.
* The loss is binary cross entropy and Dice (`training.loss.IndependentMaskLoss`).

Otherwise here:

* Plain residual blocks stand where theirs has harmonic dense blocks with weights from ImageNet, and
  group normalisation where theirs has batch normalisation, which a batch of two is too small for.
* They segment one structure. For several the network gives one dense embedding each, which are
  decoded apart. Background has the fixed logit 0, the threshold of Segment Anything's masks, so
  that a pixel belongs to the structure with the largest logit above it.
* They scale the mask of each image to 0 … 1 by its smallest and its largest logit; here a sigmoid
  does, whose threshold does not depend on the image.
* The starter's decoder takes prompts as maps too (`prompts.prompt_maps`), and answers a dense
  embedding alone only weakly. For it the network gives both, the maps at their own resolution and
  from -1 to 1. It also gets the tokens that stand there for the absence of points and boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.heads.head import ClassMasks
from SAMFineTuneLib.networks.adaptation_sites import AdapterSite, LoraSite
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.encoder import NORM_GROUPS, ResidualBlock
from SAMFineTuneLib.networks.starter.prompt_decoder import PROMPT_MAPS, StarterMaskDecoder

# Channels at halvings 1 to 4 of the image's side.
_WIDTHS = (32, 64, 128, 192)
# What the starter's decoder sees besides points: a padding point and two absent corners of a box.
_ABSENT_TOKENS = 3


class PromptMaker(nn.Module):
    """A convolutional encoder-decoder from an image to dense embeddings, and to maps.

    Args:
        channels: C of an embedding.
        count: how many embeddings.
        maps: how many maps for each; 0 for none.
    """

    def __init__(self, channels: int, count: int, maps: int) -> None:
        super().__init__()
        self.count = count
        before = (3, *_WIDTHS[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(*_convolution(own, width, stride=2), ResidualBlock(width))
            for own, width in zip(before, _WIDTHS, strict=True)
        )
        steps = [*zip(_WIDTHS[:0:-1], _WIDTHS[-2::-1], strict=True)]
        self.up = nn.ModuleList(
            nn.Sequential(*_convolution(coarse + finer, finer), ResidualBlock(finer))
            for coarse, finer in (steps if maps else steps[:1])
        )
        self.embeddings = nn.Conv2d(_WIDTHS[-2], channels * count, 1)
        self.maps = nn.Conv2d(_WIDTHS[0], maps * count, 1) if maps else None

    def forward(self, images: Tensor, side: int) -> tuple[Tensor, Tensor | None]:
        """Prompts for images (B, 3, s, s), all from -1 to 1.

        Args:
            images: s is half the side of the backbone's input.
            side: of the embedding.

        Returns:
            (B, count, C, side, side), and the maps, if any, (B, count, maps, s/2, s/2).
        """
        levels = []
        x = images
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        outputs = []
        for stage, finer in zip(self.up, levels[-2::-1], strict=False):
            x = stage(torch.cat([_resized(x, finer.shape[-1]), finer], dim=1))
            outputs.append(x)
        dense = self._of_structures(self.embeddings(_resized(outputs[0], side)))
        maps = None if self.maps is None else self._of_structures(self.maps(outputs[-1]))
        return dense, maps

    def _of_structures(self, x: Tensor) -> Tensor:
        return torch.tanh(x).unflatten(1, (self.count, -1))


class PromptNetwork(nn.Module):
    """Dense embeddings of the classes from the image, decoded by the backbone's own decoder.

    Args:
        network: the backbone; its mask decoder becomes this module's and stays frozen.
        structures: number of classes without background.
    """

    def __init__(self, network: SamNetwork, structures: int) -> None:
        super().__init__()
        absent = network.prompt_encoder.get_parameter("not_a_point_embed.weight").detach()
        self.decoder = network.mask_decoder
        maps = PROMPT_MAPS if isinstance(self.decoder, StarterMaskDecoder) else 0
        with absent.device:
            self.prompt_network = PromptMaker(absent.shape[1], structures, maps)
        self.no_prompt: Tensor
        self.register_buffer("no_prompt", absent.clone())

    def frozen_modules(self) -> list[nn.Module]:
        """The decoder, whatever the method and the scope."""
        return [self.decoder]

    def adapter_sites(self) -> list[AdapterSite]:
        """None: the network trains as a whole, and the decoder stays as it is."""
        return []

    def lora_sites(self) -> list[LoraSite]:
        """None, likewise."""
        return []

    def forward(
        self, features: FeatureState, positions: Tensor, dense_prompt: Tensor
    ) -> ClassMasks:
        """The masks of the classes; see `Head`. The dense prompt is not used."""
        *skips, image = features.skips
        own = FeatureState(features.x, tuple(skips))
        dense, maps = self.prompt_network(image, features.x.shape[-1])
        if maps is None:
            masks = self._masks(own, positions, dense)
        else:
            masks = self._starter_masks(own, positions, dense, maps)
        background = torch.zeros_like(masks[:, :1])
        return ClassMasks(torch.cat([background, masks], dim=1))

    def _masks(self, features: FeatureState, positions: Tensor, dense: Tensor) -> Tensor:
        """Logits (B, structures, 4h, 4w) of Segment Anything's decoder, which takes one image."""
        none = dense.new_zeros(dense.shape[1], 0, dense.shape[2])
        found = [
            self.decoder(
                image_embeddings=features.x[number : number + 1],
                image_pe=positions,
                sparse_prompt_embeddings=none,
                dense_prompt_embeddings=dense[number],
                multimask_output=False,
            )[0][:, 0]
            for number in range(len(dense))
        ]
        return torch.stack(found)

    def _starter_masks(
        self, features: FeatureState, positions: Tensor, dense: Tensor, maps: Tensor
    ) -> Tensor:
        """The same of the starter's decoder, which takes a batch of one structure each."""
        batch, count = dense.shape[:2]
        repeated = FeatureState(
            features.x.repeat_interleave(count, dim=0),
            tuple(each.repeat_interleave(count, dim=0) for each in features.skips),
        )
        maps = _resized(maps.flatten(0, 1), features.skips[0].shape[-1])
        logits, _ = self.decoder(
            repeated,
            positions,
            self.no_prompt.expand(batch * count, _ABSENT_TOKENS, -1),
            dense.flatten(0, 1),
            maps,
        )
        found: Tensor = logits[:, 0].unflatten(0, (batch, count))
        return found


def _convolution(channels_in: int, channels: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(NORM_GROUPS, channels),
        nn.ReLU(),
    )


def _resized(maps: Tensor, side: int) -> Tensor:
    return functional.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
