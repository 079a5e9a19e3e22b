"""The network for prompts as a function of tensors alone, for formats that hold no program.

It gives what `PromptedSegmenter` gives for one image, without a previous mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.starter.prompt_decoder import StarterMaskDecoder
from SAMFineTuneLib.prompts.prompt_maps import draw_maps
from SAMFineTuneLib.prompts.prompt_set import NEGATIVE, PADDING, POSITIVE, PromptSet


class PromptedFromTensors(nn.Module):
    """Image, points and a box to a mask.

    Args:
        segmenter: the network, in eval mode.
    """

    def __init__(self, segmenter: PromptedSegmenter) -> None:
        super().__init__()
        self.network = segmenter.network
        side = segmenter.network.input_size
        with torch.no_grad():
            device = next(segmenter.parameters()).device
            features = segmenter.encode(torch.zeros(1, 3, side, side, device=device))
            positions = segmenter._positions(features.x)
        # Whole numbers that a tracer would take for tensors, and their products for doubles.
        self._map_side = int(features.skips[0].shape[-1]) if features.skips else 0
        self.positions: Tensor
        self.register_buffer("positions", positions, persistent=False)

    def forward(
        self, image: Tensor, points: Tensor, labels: Tensor, box: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (1, 1, s, s) and the predicted intersection over union (1, 1).

        Args:
            image: (1, 3, S, S), normalised.
            points: (1, N, 2) as in `PromptSet`, N from 1.
            labels: (1, N); PADDING for a point that is none.
            box: (1, 4) as in `PromptSet`; NaN for none.

        The masks' side s is `network.mask_size`.
        """
        features = self.network.image_encoder(image)
        encoder: Any = self.network.prompt_encoder
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(features.x)
        given = labels[0] != PADDING
        tokens = self._points(points, labels)[:, given]
        corners = self._corners(box)
        boxed = ~box.isnan().any(1)
        padding = encoder.not_a_point_embed.weight[None]
        if isinstance(self.network.mask_decoder, StarterMaskDecoder):
            corners = torch.where(boxed[:, None, None], corners, padding)
            maps = draw_maps(PromptSet(points, labels, box), self._map_side)
            sparse = torch.cat([tokens, padding, corners], dim=1)
            starters: tuple[Tensor, Tensor] = self.network.mask_decoder(
                features, self.positions, sparse, dense, maps
            )
            return starters
        kept = torch.cat([given.any()[None] & ~boxed, boxed, boxed])
        sparse = torch.cat([tokens, torch.cat([padding, corners], dim=1)[:, kept]], dim=1)
        found: tuple[Tensor, Tensor] = self.network.mask_decoder(
            image_embeddings=features.x,
            image_pe=self.positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return found

    def _points(self, points: Tensor, labels: Tensor) -> Tensor:
        encoder: Any = self.network.prompt_encoder
        places = encoder.pe_layer._pe_encoding(points / self.network.input_size)
        negative, positive = (
            encoder.point_embeddings[label].weight[None] for label in (NEGATIVE, POSITIVE)
        )
        tokens: Tensor = places + torch.where(labels[..., None] == POSITIVE, positive, negative)
        return tokens

    def _corners(self, box: Tensor) -> Tensor:
        encoder: Any = self.network.prompt_encoder
        here = torch.where(box.isnan(), torch.zeros_like(box), box).reshape(1, 2, 2)
        places = encoder.pe_layer._pe_encoding(here / self.network.input_size)
        first, second = (encoder.point_embeddings[number].weight for number in (2, 3))
        corners: Tensor = places + torch.cat([first, second])[None]
        return corners
