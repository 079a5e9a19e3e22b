"""Segment Anything's vision transformers at any input size.

Definition: the `segment_anything` package (Kirillov et al. 2023, "Segment Anything"). The weights
were trained at 1024 pixels; the absolute position embedding is interpolated here, the relative
tables by the package itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.networks.adaptation_sites import AdapterSite, LoraSite, mlp_lora_sites
from SAMFineTuneLib.networks.definitions import segment_anything_modeling
from SAMFineTuneLib.networks.network import EMBEDDING_CHANNELS, SamNetwork
from SAMFineTuneLib.networks.spec import BACKBONES, BackboneSpec
from SAMFineTuneLib.networks.staged_encoder import Stage, StagedEncoder, on_features

_TRAINED_SIZE = 1024


@dataclass(frozen=True)
class _Shape:
    width: int
    depth: int
    heads: int
    global_attention: tuple[int, ...]


_SHAPES = {
    "vit_b": _Shape(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": _Shape(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": _Shape(1280, 32, 16, (7, 15, 23, 31)),
}


class SamVitEncoder(StagedEncoder):
    """The package's ImageEncoderViT, taken apart into stages.

    Args:
        encoder: an ImageEncoderViT built for 1024 pixels; its parts become this module's.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.patch_embed = encoder.patch_embed
        self.pos_embed = encoder.pos_embed
        self.blocks = encoder.blocks
        self.neck = encoder.neck

    def stages(self) -> list[Stage]:
        """Patch embedding with positions, the transformer blocks, the neck."""
        blocks = [
            Stage(f"blocks.{number}", (block,), on_features(block))
            for number, block in enumerate(self.blocks)
        ]
        return [
            Stage("embedding", (self.patch_embed, self.pos_embed), on_features(self._embed)),
            *blocks,
            Stage("neck", (self.neck,), on_features(self._reduce)),
        ]

    def adapter_sites(self) -> list[AdapterSite]:
        """Attention and MLP of every block."""
        width = self.pos_embed.shape[-1]
        numbered = list(enumerate(self.blocks))
        return [
            AdapterSite(block, "attn", "attention", width, block=number)
            for number, block in numbered
        ] + [AdapterSite(block, "mlp", "mlp", width, block=number) for number, block in numbered]

    def lora_sites(self) -> list[LoraSite]:
        """Attention and MLP of every block; all queries come first in the fused layer."""
        sites: list[LoraSite] = []
        for number, block in enumerate(self.blocks):
            sites += [
                LoraSite(block.attn, "qkv", fused_heads=1, part="qkv", block=number),
                LoraSite(block.attn, "proj", part="o", block=number),
                *mlp_lora_sites(block.mlp, ("lin1", "lin2"), number),
            ]
        return sites

    def _embed(self, images: Tensor) -> Tensor:
        x: Tensor = self.patch_embed(images)
        return x + self._positions(x.shape[1], x.shape[2])

    def _positions(self, rows: int, columns: int) -> Tensor:
        if self.pos_embed.shape[1:3] == (rows, columns):
            return self.pos_embed
        grid = self.pos_embed.permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1)

    def _reduce(self, x: Tensor) -> Tensor:
        reduced: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return reduced


def build_sam_vit(name: str, input_size: int) -> SamNetwork:
    """The network `vit_b`, `vit_l` or `vit_h` with random weights for square images."""
    spec, shape = BACKBONES[name], _SHAPES[name]
    encoder = segment_anything_modeling().ImageEncoderViT(
        img_size=_TRAINED_SIZE,
        patch_size=spec.patch_size,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=shape.global_attention,
        window_size=14,
        out_chans=EMBEDDING_CHANNELS,
    )
    return SamNetwork(
        spec,
        input_size,
        SamVitEncoder(encoder),
        build_prompt_encoder(spec, input_size),
        build_mask_decoder(),
    )


def build_prompt_encoder(
    spec: BackboneSpec, input_size: int, channels: int = EMBEDDING_CHANNELS
) -> nn.Module:
    """Segment Anything's prompt encoder; its positions are relative to the image's side."""
    side = input_size // spec.patch_size
    encoder: nn.Module = segment_anything_modeling().PromptEncoder(
        embed_dim=channels,
        image_embedding_size=(side, side),
        input_image_size=(input_size, input_size),
        mask_in_chans=16,
    )
    return encoder


def build_mask_decoder() -> nn.Module:
    """Segment Anything's mask decoder, with the four mask tokens of its checkpoints."""
    modeling = segment_anything_modeling()
    decoder: nn.Module = modeling.MaskDecoder(
        num_multimask_outputs=3,
        transformer=modeling.TwoWayTransformer(
            depth=2, embedding_dim=EMBEDDING_CHANNELS, mlp_dim=2048, num_heads=8
        ),
        transformer_dim=EMBEDDING_CHANNELS,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    return decoder
