"""From the embedding at stride 16 to features at stride 4, joined by the encoder's skips."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from SAMFineTuneLib.networks.starter.encoder import (
    NORM_GROUPS,
    STRIDE_4_CHANNELS,
    STRIDE_8_CHANNELS,
)
from SAMFineTuneLib.networks.starter.refining_block import refining_blocks


class SkipUpscaling(nn.Module):
    """Two transposed convolutions, after each of which the encoder's features are added.

    Args:
        channels: C of the embedding.
        dilations8: dilation of each refining block at stride 8.
        dilations4: dilation of each refining block at stride 4.
    """

    def __init__(
        self, channels: int, dilations8: Sequence[int] = (), dilations4: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.to_stride8 = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.skip8 = nn.Conv2d(STRIDE_8_CHANNELS, channels // 2, 1)
        self.refine8 = _refinement(channels // 2)
        self.blocks8 = refining_blocks(channels // 2, dilations8)
        self.to_stride4 = nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2)
        self.skip4 = nn.Conv2d(STRIDE_4_CHANNELS, channels // 4, 1)
        self.refine4 = _refinement(channels // 4)
        self.blocks4 = refining_blocks(channels // 4, dilations4)

    def forward(
        self,
        x: Tensor,
        skips: tuple[Tensor, ...],
        beside: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B, C, h, w) and skips (stride 4, stride 8) to (B, C/4, 4h, 4w).

        Args:
            x: embedding.
            skips: the encoder's features at stride 4 and 8.
            beside: maps to add at stride 4, (B, C/4, 4h, 4w), and stride 8, (B, C/2, 2h, 2w).
        """
        stride4, stride8 = (self.skip4(skips[0]), self.skip8(skips[1]))
        if beside is not None:
            stride4, stride8 = stride4 + beside[0], stride8 + beside[1]
        x = self.blocks8(self.refine8(self.to_stride8(x) + stride8))
        refined: Tensor = self.blocks4(self.refine4(self.to_stride4(x) + stride4))
        return refined


def _refinement(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GroupNorm(NORM_GROUPS, channels),
        nn.GELU(),
    )
