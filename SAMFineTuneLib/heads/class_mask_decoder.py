"""Segment Anything's mask decoder as an automatic multi-class segmentation head.

Prompts are replaced by one learnt mask token for each class, including background, and separate
thresholds by a softmax over the classes, as in SAMed (Zhang and Liu 2023) and the study that the
project follows (Gu et al., MELBA 2025:006).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.heads.two_way_head import (
    TwoWayHead,
    noisy_copies,
    refining_part,
    resized_output,
)
from SAMFineTuneLib.networks.staged_encoder import FeatureState


class ClassMaskDecoder(TwoWayHead):
    """A mask decoder with one mask token and one output layer for each class.

    Its transformer and upscaling are those of Segment Anything's decoder. A linear map of the
    embedding and of the place in the square is added to the logits; it is zero until `begin_with`
    sets it.

    Args:
        decoder: the mask decoder whose parts are used, with its pretrained weights.
        structures: number of classes without background.
    """

    def __init__(self, decoder: Any, structures: int) -> None:
        super().__init__()
        classes = structures + 1
        self.transformer = decoder.transformer
        self.iou_token: nn.Embedding = decoder.iou_token
        self.mask_tokens = class_tokens(decoder.mask_tokens, classes)
        self.blocks16 = refining_part(decoder)
        self.output_upscaling = decoder.output_upscaling
        # The first of the decoder's tokens was trained to give a single whole mask.
        self.output_hypernetworks_mlps = nn.ModuleList(
            copy.deepcopy(decoder.output_hypernetworks_mlps[0]) for _ in range(classes)
        )
        self.iou_prediction_head = resized_output(decoder.iou_prediction_head, classes)
        tokens = self.mask_tokens.weight
        self.linear_weight = nn.Parameter(torch.zeros_like(tokens).repeat(1, 2))
        self.linear_bias = nn.Parameter(torch.zeros_like(tokens[:, 0]))

    def forward(
        self, features: FeatureState, positions: Tensor, dense_prompt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Class logits of a batch of embedded images.

        Args:
            features: embedding (B, C, h, w) and skips of the image encoder.
            positions: positional encoding (1, C, h, w).
            dense_prompt: what the prompt encoder adds to the embedding, (1, C, 1, 1) or larger.

        Returns:
            Logits (B, classes, 4h, 4w), background first; and the intersection over union that
            the network predicts for each class's mask, (B, classes).
        """
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens_out, upscaled = self.decoded(
            features.x + dense_prompt,
            positions,
            tokens.expand(len(features.x), -1, -1),
            features.skips,
        )
        filters = torch.stack(
            [
                mlp(tokens_out[:, 1 + number])
                for number, mlp in enumerate(self.output_hypernetworks_mlps)
            ],
            dim=1,
        )
        logits = torch.einsum("bkc,bchw->bkhw", filters, upscaled)
        by_content, by_place = self.linear_weight.chunk(2, dim=1)
        linear = torch.einsum("kc,bchw->bkhw", by_content, features.x)
        linear = linear + torch.einsum("kc,bchw->bkhw", by_place, positions)
        linear = linear + self.linear_bias[:, None, None]
        logits = logits + functional.interpolate(linear, logits.shape[-2:], mode="bilinear")
        return logits, self.iou_prediction_head(tokens_out[:, 0])

    @torch.no_grad()
    def begin_with(self, weight: Tensor, bias: Tensor) -> None:
        """Sets the linear map from the embedding and the places to the logits.

        At first the masks of all classes are nearly the same, which a softmax over the classes
        ignores, so this map alone decides.

        Args:
            weight: (classes, 2C), of the embedding's channels, then of the positional encoding's.
            bias: (classes,).
        """
        self.linear_weight.copy_(weight)
        self.linear_bias.copy_(bias)


def class_tokens(tokens: nn.Embedding, classes: int) -> nn.Embedding:
    """One token for each class, each a copy of the decoder's first one with a little noise."""
    copies = noisy_copies(tokens.weight[:1], classes)[:, 0]
    created = nn.Embedding(classes, copies.shape[1], device=copies.device)
    created.weight = nn.Parameter(copies)
    return created
