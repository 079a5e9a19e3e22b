"""Convolutions that refine a mask decoder's features at one resolution, after it has seen prompts.

In Segment Anything's two-way transformer every place of an image attends to the prompts, but not to
its neighbours: places around a click are compared with the click, and nothing spreads from the
click up to an edge. In a large network the image encoder has done that work; in a small one it is
done by a few convolutions that follow the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.starter.encoder import NORM_GROUPS


class RefiningBlock(nn.Module):
    """Two 3 × 3 convolutions behind normalisations (He et al. 2016, "Identity mappings").

    With its initial weights it returns its input unchanged, so that blocks can be added to a
    trained decoder.
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
