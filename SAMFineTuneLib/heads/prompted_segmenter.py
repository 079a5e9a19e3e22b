"""A backbone that finds masks from prompts: it encodes an image once, and decodes prompts on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.networks.starter.prompt_decoder import StarterMaskDecoder
from SAMFineTuneLib.prompts.prompt_maps import draw_maps
from SAMFineTuneLib.prompts.prompt_set import PADDING, PromptSet


class PromptedSegmenter(nn.Module):
    """Finds masks from prompts, with the starter network or one of Segment Anything's.

    Args:
        network: the network, with the mask decoder that it was built with.
    """

    def __init__(self, network: SamNetwork) -> None:
        super().__init__()
        self.network = network

    def encode(self, images: Tensor) -> FeatureState:
        """The features that `decode` needs, from normalised images (B, 3, S, S)."""
        features: FeatureState = self.network.image_encoder(images)
        return features

    def decode(self, features: FeatureState, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        """Mask logits (B, 1, s, s) and the predicted intersection over union (B, 1).

        The masks' side s is `network.mask_size`. Of the masks that Segment Anything's decoder gives
        this is the first, which is meant for prompts that are not ambiguous.
        """
        logits, iou_predictions = self.decode_all(features, prompts)
        return logits[:, :1], iou_predictions[:, :1]

    def decode_all(self, features: FeatureState, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        """All masks that the decoder gives: logits (B, M, s, s) and IoU predictions (B, M).

        Segment Anything's gives four: one for prompts that are not ambiguous, and three, from large
        to small, for prompts that may mean a part or the whole. The starter's gives one.
        """
        if isinstance(self.network.mask_decoder, StarterMaskDecoder):
            return self._decode_together(features, prompts)
        # Segment Anything's decoder takes several sets of prompts at once, but only of one image.
        found = [
            self._decode_one(features.x[number : number + 1], prompts.of_image(number))
            for number in range(len(features.x))
        ]
        logits, iou_predictions = zip(*found, strict=True)
        return torch.cat(logits), torch.cat(iou_predictions)

    def _decode_together(self, features: FeatureState, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        logits, iou_predictions = self.network.mask_decoder(
            features,
            self._positions(features.x),
            self._tokens(prompts),
            self._dense(prompts, features.x),
            draw_maps(prompts, features.skips[0].shape[-1]),
        )
        return logits, iou_predictions

    def _decode_one(self, embedding: Tensor, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        decoder: Any = self.network.mask_decoder
        logits, iou_predictions = decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self._positions(embedding),
            sparse_prompt_embeddings=self._official_tokens(prompts),
            dense_prompt_embeddings=self._dense(prompts, embedding),
        )
        return logits, iou_predictions

    def _positions(self, embedding: Tensor) -> Tensor:
        encoder: Any = self.network.prompt_encoder
        positions: Tensor = encoder.pe_layer(embedding.shape[-2:])[None]
        return positions

    def _official_tokens(self, prompts: PromptSet) -> Tensor:
        """The tokens (1, N, C) that Segment Anything's prompt encoder makes of one image's prompts.

        Padding follows the points only if there is no box. If there is only a mask, N is 0.
        """
        encoder: Any = self.network.prompt_encoder
        given = prompts.labels[0] != PADDING
        boxed = bool(prompts.boxed)
        tokens = [encoder.no_mask_embed.weight.new_zeros(1, 0, encoder.embed_dim)]
        if given.any():
            points, labels = prompts.points[:, given] - 0.5, prompts.labels[:, given]
            tokens.append(encoder._embed_points(points, labels, pad=not boxed))
        if boxed:
            tokens.append(encoder._embed_boxes(prompts.boxes - 0.5))
        if prompts.further_boxes is not None:
            given_boxes = ~prompts.further_boxes[0].isnan().any(1)
            corners = encoder._embed_boxes(prompts.further_boxes[0][given_boxes] - 0.5)
            tokens.append(corners.reshape(1, -1, encoder.embed_dim))
        return torch.cat(tokens, dim=1)

    def _tokens(self, prompts: PromptSet) -> Tensor:
        """The tokens (B, N + 3, C): points, padding, and the two corners of a box.

        There are two more for each further box.

        In an image without a box, the tokens for a missing point stand for the corners. The prompt
        encoder takes positions for indices and adds half a pixel, which is subtracted here because
        positions in a `PromptSet` already include it.
        """
        encoder: Any = self.network.prompt_encoder
        points = encoder._embed_points(prompts.points - 0.5, prompts.labels, pad=True)
        boxes = [prompts.boxes]
        if prompts.further_boxes is not None:
            boxes += prompts.further_boxes.unbind(1)
        return torch.cat([points, *(self._corners(each) for each in boxes)], 1)

    def _corners(self, boxes: Tensor) -> Tensor:
        """The tokens (B, 2, C) of the corners of boxes (B, 4)."""
        encoder: Any = self.network.prompt_encoder
        corners = encoder._embed_boxes(boxes.nan_to_num() - 0.5)
        absent = encoder.not_a_point_embed.weight.expand_as(corners)
        given = ~boxes.isnan().any(1)
        return torch.where(given[:, None, None], corners, absent)

    def _dense(self, prompts: PromptSet, embedding: Tensor) -> Tensor:
        encoder: Any = self.network.prompt_encoder
        if prompts.mask is None:
            return encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(embedding)
        dense: Tensor = encoder.mask_downscaling(prompts.mask)
        return dense
