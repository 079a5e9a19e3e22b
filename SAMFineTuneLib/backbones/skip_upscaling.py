"""From the embedding at stride 16 to features at stride 4, joined by the encoder's skips."""

from __future__ import annotations

from torch import Tensor, nn

from SAMFineTuneLib.backbones.starter_encoder import (
    NORM_GROUPS,
    STRIDE_4_CHANNELS,
    STRIDE_8_CHANNELS,
)


class SkipUpscaling(nn.Module):
    """Two transposed convolutions, each followed by what the encoder saw at that resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_stride8 = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.skip8 = nn.Conv2d(STRIDE_8_CHANNELS, channels // 2, 1)
        self.refine8 = _refinement(channels // 2)
        self.to_stride4 = nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2)
        self.skip4 = nn.Conv2d(STRIDE_4_CHANNELS, channels // 4, 1)
        self.refine4 = _refinement(channels // 4)

    def forward(self, x: Tensor, skips: tuple[Tensor, ...], beside: Tensor | None = None) -> Tensor:
        """(B, C, h, w) and skips (stride 4, stride 8) to (B, C/4, 4h, 4w).

        Args:
            x: embedding.
            skips: the encoder's features at stride 4 and 8.
            beside: (B, C/4, 4h, 4w) to add at stride 4.
        """
        stride4, stride8 = skips
        x = self.refine8(self.to_stride8(x) + self.skip8(stride8))
        x = self.to_stride4(x) + self.skip4(stride4)
        refined: Tensor = self.refine4(x if beside is None else x + beside)
        return refined


def _refinement(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GroupNorm(NORM_GROUPS, channels),
        nn.GELU(),
    )
