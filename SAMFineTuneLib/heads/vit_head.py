"""The ViT head of Hu et al. 2023 ("How to Efficiently Adapt Large Segmentation Model (SAM) to
Medical Images", arXiv:2306.13731): a mask decoder without prompts, run once for each class.

Each class has its own tokens, which look at its own copy of the embedding; so the classes do not
see each other, and time grows with their number. Nothing of the prompt encoder is added to the
embedding. As there, each class has all tokens of Segment Anything's decoder, and the first one
gives the mask. Transformer and upscaling begin with the backbone's weights, tokens and output
layers with copies of them for each class. Their own implementation also computes a predicted
overlap, from which nothing is learnt; it is left out.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.heads.head import ClassMasks
from SAMFineTuneLib.heads.two_way_head import TwoWayHead, noisy_copies, refining_part
from SAMFineTuneLib.networks.staged_encoder import FeatureState


class VitHead(TwoWayHead):
    """A mask decoder with tokens and an output layer for each class, which are decoded apart.

    Args:
        decoder: the mask decoder whose parts are used, with its pretrained weights.
        structures: number of classes without background.
    """

    def __init__(self, decoder: Any, structures: int) -> None:
        super().__init__()
        classes = structures + 1
        self.transformer = decoder.transformer
        self.blocks16 = refining_part(decoder)
        self.output_upscaling = decoder.output_upscaling
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        self.tokens = nn.Parameter(noisy_copies(own, classes))
        self.output_mlps = nn.ModuleList(
            copy.deepcopy(decoder.output_hypernetworks_mlps[0]) for _ in range(classes)
        )

    def forward(
        self, features: FeatureState, positions: Tensor, dense_prompt: Tensor
    ) -> ClassMasks:
        """The masks of the classes; see `Head`. The dense prompt is not used."""
        batch, classes = len(features.x), len(self.tokens)
        tokens_out, upscaled = self.decoded(
            features.x.repeat_interleave(classes, dim=0),
            positions,
            self.tokens.repeat(batch, 1, 1),
            tuple(each.repeat_interleave(classes, dim=0) for each in features.skips),
        )
        # Behind the token for the overlap comes that of the first mask.
        of_classes = tokens_out[:, 1].unflatten(0, (batch, classes))
        filters = torch.stack(
            [mlp(of_classes[:, number]) for number, mlp in enumerate(self.output_mlps)], dim=1
        )
        images = upscaled.unflatten(0, (batch, classes))
        return ClassMasks(torch.einsum("bkc,bkchw->bkhw", filters, images))
