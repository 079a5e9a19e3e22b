"""The project's own small network in the shape of Segment Anything, made for CPUs.

A residual convolution encoder gives an embedding at stride 16 and, as in SAM 2 (Ravi et al. 2024),
features at strides 4 and 8 that join the mask decoder where it upscales: a mask made from stride 16
alone loses small structures. Prompt encoder and two-way transformer are Segment Anything's
components at half their width. Plain convolutions cost a CPU less than a transformer's early,
high-resolution blocks; group normalisation does not depend on the batch, which is tiny here.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.backbones.adaptation_sites import AdapterSite, LoraSite
from SAMFineTuneLib.backbones.definitions import segment_anything_modeling
from SAMFineTuneLib.backbones.network import PATCH_SIZE, SamNetwork
from SAMFineTuneLib.backbones.registry import BACKBONES
from SAMFineTuneLib.backbones.staged_encoder import (
    FeatureState,
    Stage,
    StagedEncoder,
    on_features,
)

_EMBEDDING_CHANNELS = 128
_STRIDE_2, _STRIDE_4, _STRIDE_8, _STRIDE_16 = 24, 48, 96, 160
_NORM_GROUPS = 8


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(_NORM_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(_NORM_GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(inner)))


def _downsampling(channels_in: int, channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(_NORM_GROUPS, channels),
        nn.ReLU(),
        *(ResidualBlock(channels) for _ in range(blocks)),
    )


class StarterEncoder(StagedEncoder):
    """Image (B, 3, S, S) to embedding (B, 128, S/16, S/16) and skips at strides 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stride2 = _downsampling(3, _STRIDE_2, blocks=1)
        self.stride4 = _downsampling(_STRIDE_2, _STRIDE_4, blocks=1)
        self.stride8 = _downsampling(_STRIDE_4, _STRIDE_8, blocks=2)
        self.stride16 = _downsampling(_STRIDE_8, _STRIDE_16, blocks=3)
        self.neck = nn.Sequential(
            nn.Conv2d(_STRIDE_16, _EMBEDDING_CHANNELS, 1, bias=False),
            nn.GroupNorm(_NORM_GROUPS, _EMBEDDING_CHANNELS),
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
        """Behind every residual block: there are few, and all are small."""
        return [
            AdapterSite(stage, name, "conv", block.conv1.in_channels)
            for stage, name, block in self._residual_blocks()
        ]

    def lora_sites(self) -> list[LoraSite]:
        """Both convolutions of every residual block, for want of query and value."""
        return [
            LoraSite(block, name)
            for _, _, block in self._residual_blocks()
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


class SkipUpscaling(nn.Module):
    """Embedding at stride 16 to features at stride 4, joined by the encoder's skips."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_stride8 = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.skip8 = nn.Conv2d(_STRIDE_8, channels // 2, 1)
        self.refine8 = _refinement(channels // 2)
        self.to_stride4 = nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2)
        self.skip4 = nn.Conv2d(_STRIDE_4, channels // 4, 1)
        self.refine4 = _refinement(channels // 4)

    def forward(self, x: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """(B, C, h, w) and skips (stride 4, stride 8) to (B, C/4, 4h, 4w)."""
        stride4, stride8 = skips
        x = self.refine8(self.to_stride8(x) + self.skip8(stride8))
        refined: Tensor = self.refine4(self.to_stride4(x) + self.skip4(stride4))
        return refined


def _refinement(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GroupNorm(_NORM_GROUPS, channels),
        nn.GELU(),
    )


def build_starter(input_size: int) -> SamNetwork:
    """The starter network with random weights for square images of `input_size` pixels."""
    modeling = segment_anything_modeling()
    side = input_size // PATCH_SIZE
    prompt_encoder = modeling.PromptEncoder(
        embed_dim=_EMBEDDING_CHANNELS,
        image_embedding_size=(side, side),
        input_image_size=(input_size, input_size),
        mask_in_chans=16,
    )
    mask_decoder = modeling.MaskDecoder(
        transformer_dim=_EMBEDDING_CHANNELS,
        transformer=modeling.TwoWayTransformer(
            depth=2, embedding_dim=_EMBEDDING_CHANNELS, mlp_dim=256, num_heads=4
        ),
        iou_head_hidden_dim=_EMBEDDING_CHANNELS,
    )
    mask_decoder.output_upscaling = SkipUpscaling(_EMBEDDING_CHANNELS)
    mask_decoder.output_hypernetworks_mlps = nn.ModuleList(
        type(mask_decoder.iou_prediction_head)(
            _EMBEDDING_CHANNELS, _EMBEDDING_CHANNELS, _EMBEDDING_CHANNELS // 4, 3
        )
        for _ in range(mask_decoder.num_mask_tokens)
    )
    return SamNetwork(
        BACKBONES["starter"], input_size, StarterEncoder(), prompt_encoder, mask_decoder
    )
