"""The starter network's mask decoder: one mask from points, a box and a previous mask.

Segment Anything gives prompts to its decoder as tokens only. A small network does not learn from
tokens alone where to look, at least not in an affordable training time, so here the decoder gets
the prompts as maps too: discs around points, the filled box and the previous mask, drawn at stride
4. They are added to the dense prompt and to the high-resolution features. Refining blocks at every
resolution spread the effect of a prompt over the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.definitions import segment_anything_modeling
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.encoder import EMBEDDING_CHANNELS as CHANNELS
from SAMFineTuneLib.networks.starter.refining_block import refining_blocks
from SAMFineTuneLib.networks.starter.skip_upscaling import SkipUpscaling

# Positive points, negative points, box, previous mask.
PROMPT_MAPS = 4
# Dilations of the refining blocks at each stride; fewer blocks where there are more pixels.
_DILATIONS_16, _DILATIONS_8, _DILATIONS_4 = (1, 2), (1, 2), (1,)


def build_transformer() -> nn.Module:
    """Segment Anything's two-way transformer at half its width, with random weights."""
    transformer: nn.Module = segment_anything_modeling().TwoWayTransformer(
        depth=2, embedding_dim=CHANNELS, mlp_dim=256, num_heads=4
    )
    return transformer


class StarterMaskDecoder(nn.Module):
    """Segment Anything's mask decoder at half its width, with one mask and with prompt maps.

    The parts bear the names that they have in Segment Anything.
    """

    def __init__(self) -> None:
        super().__init__()
        modeling = segment_anything_modeling()
        self.transformer = build_transformer()
        mlp = modeling.mask_decoder.MLP
        self.iou_token = nn.Embedding(1, CHANNELS)
        self.mask_tokens = nn.Embedding(1, CHANNELS)
        self.blocks16 = refining_blocks(CHANNELS, _DILATIONS_16)
        self.output_upscaling = SkipUpscaling(CHANNELS, _DILATIONS_8, _DILATIONS_4)
        self.output_hypernetworks_mlps = nn.ModuleList([mlp(CHANNELS, CHANNELS, CHANNELS // 4, 3)])
        self.iou_prediction_head: nn.Module = mlp(CHANNELS, CHANNELS, 1, 3)
        self.maps_at_stride16 = nn.Sequential(
            nn.Conv2d(PROMPT_MAPS, 16, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(16, CHANNELS, 3, stride=2, padding=1),
        )
        self.maps_at_stride8 = nn.Conv2d(PROMPT_MAPS, CHANNELS // 2, 3, stride=2, padding=1)
        self.maps_at_stride4 = nn.Conv2d(PROMPT_MAPS, CHANNELS // 4, 3, padding=1)

    def forward(
        self,
        features: FeatureState,
        positions: Tensor,
        sparse_prompt: Tensor,
        dense_prompt: Tensor,
        maps: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One mask for each prompted image.

        Args:
            features: embedding (B, C, h, w) and skips of the image encoder.
            positions: positional encoding (1, C, h, w).
            sparse_prompt: tokens (B, N, C) of points and box corners.
            dense_prompt: (B, C, h, w), what the prompt encoder adds to the embedding.
            maps: (B, 4, 4h, 4w), as `prompt_maps.draw_maps` draws them.

        Returns:
            Mask logits (B, 1, 4h, 4w), and the intersection over union that the network predicts
            for the mask, (B, 1).
        """
        embedding = features.x
        batch = len(embedding)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(batch, -1, -1), sparse_prompt], dim=1)
        tokens_out, source = self.transformer(
            embedding + dense_prompt + self.maps_at_stride16(maps),
            positions.expand(batch, -1, -1, -1),
            tokens,
        )
        source = self.blocks16(source.transpose(1, 2).reshape(embedding.shape))
        beside = (self.maps_at_stride4(maps), self.maps_at_stride8(maps))
        upscaled = self.output_upscaling(source, features.skips, beside)
        mask_filter = self.output_hypernetworks_mlps[0](tokens_out[:, 1])
        logits = torch.einsum("bc,bchw->bhw", mask_filter, upscaled)[:, None]
        return logits, self.iou_prediction_head(tokens_out[:, 0])
