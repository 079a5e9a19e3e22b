"""The starter network's image encoder: residual convolutions, made for CPUs.

It gives an embedding at stride 16 and, as in SAM 2 (Ravi et al. 2024), features at strides 4 and 8
that the mask decoders add when they upscale, because a mask made from stride 16 alone loses small
structures. Plain convolutions take less time on a CPU than a transformer's early, high-resolution
blocks. Group normalisation does not depend on the batch, which is tiny in a fine-tune.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.networks.adaptation_sites import AdapterSite, LoraSite
from SAMFineTuneLib.networks.staged_encoder import (
    FeatureState,
    Stage,
    StagedEncoder,
    on_features,
)

EMBEDDING_CHANNELS = 128
STRIDE_4_CHANNELS, STRIDE_8_CHANNELS = 48, 96
NORM_GROUPS = 8
_STRIDE_2, _STRIDE_4, _STRIDE_8, _STRIDE_16 = 24, STRIDE_4_CHANNELS, STRIDE_8_CHANNELS, 160


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(inner)))


def _downsampling(channels_in: int, channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(NORM_GROUPS, channels),
        nn.ReLU(),
        *(ResidualBlock(channels) for _ in range(blocks)),
    )


class StarterEncoder(StagedEncoder):
    """Image (B, 3, S, S) to embedding (B, 128, S/16, S/16) and skips at strides 4 and 8."""

    skip_channels = (STRIDE_4_CHANNELS, STRIDE_8_CHANNELS)

    def __init__(self) -> None:
        super().__init__()
        self.stride2 = _downsampling(3, _STRIDE_2, blocks=1)
        self.stride4 = _downsampling(_STRIDE_2, _STRIDE_4, blocks=1)
        self.stride8 = _downsampling(_STRIDE_4, _STRIDE_8, blocks=2)
        self.stride16 = _downsampling(_STRIDE_8, _STRIDE_16, blocks=3)
        self.neck = nn.Sequential(
            nn.Conv2d(_STRIDE_16, EMBEDDING_CHANNELS, 1, bias=False),
            nn.GroupNorm(NORM_GROUPS, EMBEDDING_CHANNELS),
        )

    def stages(self) -> list[Stage]:
        """One stage for each halving of the resolution, then the neck."""
        return [
            Stage("stride2", (self.stride2,), on_features(self.stride2)),
            Stage("stride4", (self.stride4,), self._to_stride4),
            Stage("stride8", (self.stride8,), self._to_stride8),
            Stage("stride16", (self.stride16,), on_features(self.stride16)),
            Stage("neck", (self.neck,), on_features(self.neck)),
        ]

    def _to_stride4(self, state: FeatureState) -> FeatureState:
        x = self.stride4(state.x)
        return FeatureState(x, (x,))

    def _to_stride8(self, state: FeatureState) -> FeatureState:
        x = self.stride8(state.x)
        return FeatureState(x, (*state.skips, x))

    def adapter_sites(self) -> list[AdapterSite]:
        """Behind every residual block."""
        return [
            AdapterSite(stage, name, "conv", block.conv1.in_channels, block=number)
            for number, (stage, name, block) in enumerate(self._residual_blocks())
        ]

    def lora_sites(self) -> list[LoraSite]:
        """Both convolutions of every residual block, for want of query and value."""
        return [
            LoraSite(block, name, block=number)
            for number, (_, _, block) in enumerate(self._residual_blocks())
            for name in ("conv1", "conv2")
        ]

    def _residual_blocks(self) -> list[tuple[nn.Module, str, ResidualBlock]]:
        stages = (self.stride2, self.stride4, self.stride8, self.stride16)
        return [
            (stage, name, child)
            for stage in stages
            for name, child in stage.named_children()
            if isinstance(child, ResidualBlock)
        ]


@torch.no_grad()
def give_initial_scale(encoder: StarterEncoder) -> None:
    """Scales the weights of every convolution back to the norm that they had before training.

    A group norm follows each convolution, so the scale does not change what the encoder computes.
    But training makes the weights grow, and weights of twice the norm change their direction half
    as much in an optimiser's step: a fine-tune would change the pretrained encoder too slowly.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            # The mean square of PyTorch's initial weights is 1 / (3 · fan-in).
            initial = (module.out_channels / 3) ** 0.5
            module.weight.mul_(initial / module.weight.norm())
