"""A backbone with its own mask decoder: an image once, then a mask for every set of prompts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.backbones.network import SamNetwork
from SAMFineTuneLib.backbones.staged_encoder import FeatureState
from SAMFineTuneLib.backbones.starter_prompt_decoder import StarterMaskDecoder
from SAMFineTuneLib.prompts.prompt_maps import draw_maps
from SAMFineTuneLib.prompts.prompt_set import PromptSet


class PromptedSegmenter(nn.Module):
    """Prompts to masks with the starter network.

    Args:
        network: the network, with the mask decoder that it was built with.
    """

    def __init__(self, network: SamNetwork) -> None:
        super().__init__()
        self.network = network

    def encode(self, images: Tensor) -> FeatureState:
        """Normalised images (B, 3, S, S) to what `decode` needs of them."""
        features: FeatureState = self.network.image_encoder(images)
        return features

    def decode(self, features: FeatureState, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        """Mask logits (B, 1, S/4, S/4) and the expected intersection over union (B, 1)."""
        encoder: Any = self.network.prompt_encoder
        decoder = self.network.mask_decoder
        assert isinstance(decoder, StarterMaskDecoder)
        side = features.skips[0].shape[-1]
        logits, overlaps = decoder(
            features,
            encoder.pe_layer(features.x.shape[-2:])[None],
            self._tokens(prompts),
            self._dense(prompts, features.x),
            draw_maps(prompts, side),
        )
        return logits, overlaps

    def _tokens(self, prompts: PromptSet) -> Tensor:
        """(B, N + 3, C): points and padding, then the two corners of a box or what stands for none.

        The prompt encoder adds half a pixel to positions that it takes for indices; ours have it.
        """
        encoder: Any = self.network.prompt_encoder
        points = encoder._embed_points(prompts.points - 0.5, prompts.labels, pad=True)
        corners = encoder._embed_boxes(prompts.boxes.nan_to_num() - 0.5)
        absent = encoder.not_a_point_embed.weight.expand_as(corners)
        return torch.cat([points, torch.where(prompts.boxed[:, None, None], corners, absent)], 1)

    def _dense(self, prompts: PromptSet, embedding: Tensor) -> Tensor:
        encoder: Any = self.network.prompt_encoder
        if prompts.mask is None:
            return encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(embedding)
        dense: Tensor = encoder.mask_downscaling(prompts.mask)
        return dense
