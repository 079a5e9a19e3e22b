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
* The starter's decoder also takes prompts as maps and, without any, tokens that stand for their
  absence; it gets empty maps and these tokens.
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


class DenseEmbeddings(nn.Module):
    """A convolutional encoder-decoder from an image to dense embeddings.

    Args:
        channels: C of an embedding.
        count: how many embeddings.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.count = count
        before = (3, *_WIDTHS[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(*_convolution(own, width, stride=2), ResidualBlock(width))
            for own, width in zip(before, _WIDTHS, strict=True)
        )
        finer, coarse = _WIDTHS[-2:]
        self.up = nn.Sequential(*_convolution(finer + coarse, finer), ResidualBlock(finer))
        self.last = nn.Conv2d(finer, channels * count, 1)

    def forward(self, images: Tensor, side: int) -> Tensor:
        """(B, 3, s, s) to (B, count, C, side, side), from -1 to 1."""
        x, finer = images, images
        for stage in self.down:
            x, finer = stage(x), x
        x = torch.cat([finer, _resized(x, finer.shape[-1])], dim=1)
        found = torch.tanh(self.last(_resized(self.up(x), side)))
        return found.unflatten(1, (self.count, -1))


class PromptNetwork(nn.Module):
    """Dense embeddings of the classes from the image, decoded by the backbone's own decoder.

    Args:
        network: the backbone; its mask decoder becomes this module's and stays frozen.
        structures: number of classes without background.
    """

    def __init__(self, network: SamNetwork, structures: int) -> None:
        super().__init__()
        absent = network.prompt_encoder.get_parameter("not_a_point_embed.weight").detach()
        with absent.device:
            self.prompt_network = DenseEmbeddings(absent.shape[1], structures)
        self.decoder = network.mask_decoder
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
        dense = self.prompt_network(image, features.x.shape[-1])
        together = isinstance(self.decoder, StarterMaskDecoder)
        masks = (self._starter_masks if together else self._masks)(own, positions, dense)
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

    def _starter_masks(self, features: FeatureState, positions: Tensor, dense: Tensor) -> Tensor:
        """The same of the starter's decoder, which takes a batch of one structure each."""
        batch, count = dense.shape[:2]
        repeated = FeatureState(
            features.x.repeat_interleave(count, dim=0),
            tuple(each.repeat_interleave(count, dim=0) for each in features.skips),
        )
        side = features.skips[0].shape[-1]
        logits, _ = self.decoder(
            repeated,
            positions,
            self.no_prompt.expand(batch * count, _ABSENT_TOKENS, -1),
            dense.flatten(0, 1),
            dense.new_zeros(batch * count, PROMPT_MAPS, side, side),
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
