"""Convolutions that refine what a mask decoder makes of prompts, at one resolution.

Segment Anything's two-way transformer lets every place of an image look at the prompts, but not at
its neighbours: what lies around a click is compared with the click, and nothing spreads from it to
where an edge is. In a large network the image encoder has done that work; in a small one a few
convolutions that know the prompts do it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.starter.encoder import NORM_GROUPS


class RefiningBlock(nn.Module):
    """Two 3 × 3 convolutions behind normalisations (He et al. 2016, "Identity mappings").

    It begins by passing on what it gets: a trained decoder can be given more of them.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv1 = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.norm2 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for each in self.conv2.parameters():
            nn.init.zeros_(each)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        inner = self.conv1(torch.relu(self.norm1(x)))
        refined: Tensor = x + self.conv2(torch.relu(self.norm2(inner)))
        return refined


def refining_blocks(channels: int, dilations: Sequence[int]) -> nn.Sequential:
    """One block for each dilation."""
    return nn.Sequential(*(RefiningBlock(channels, each) for each in dilations))
