"""The smallest head of Hu et al. 2023 (arXiv:2306.13731), which they call linear.

The upscaling of Segment Anything's mask decoder, with its weights, and two 1 × 1 convolutions with
a rectifier between them. (Behind the last one their code has another rectifier, with which no logit
could be negative; it is left out.) Of a backbone whose upscaling takes high-resolution features,
such as the starter, it takes them too.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from SAMFineTuneLib.heads.head import ClassMasks
from SAMFineTuneLib.heads.two_way_head import upscaled_width
from SAMFineTuneLib.networks.adaptation_sites import AdapterSite, LoraSite
from SAMFineTuneLib.networks.staged_encoder import FeatureState


class LinearHead(nn.Module):
    """Upscaling, and two layers that see one pixel each.

    Args:
        decoder: the mask decoder whose upscaling is used, with its pretrained weights.
        structures: number of classes without background.
    """

    def __init__(self, decoder: Any, structures: int) -> None:
        super().__init__()
        width, device = upscaled_width(decoder), decoder.iou_token.weight.device
        self.output_upscaling: nn.Module = decoder.output_upscaling
        self.final = nn.Sequential(
            nn.Conv2d(width, width, 1, device=device),
            nn.ReLU(),
            nn.Conv2d(width, structures + 1, 1, device=device),
        )

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
        skips = (features.skips,) if features.skips else ()
        return ClassMasks(self.final(self.output_upscaling(features.x, *skips)))
