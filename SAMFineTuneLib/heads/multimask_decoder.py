"""A mask decoder with one token for each class and Segment Anything's three masks from each.

Segment Anything answers an ambiguous prompt with three masks (the whole, a part, a part of the
part) and predicts the intersection over union of each. The study (Gu et al., MELBA 2025:006) names
this output beside the one with a single mask. Here every class has three output layers on its one
token, and the mask with the highest predicted overlap is the class's, in training too. The
prediction is therefore trained for all three masks and not for the chosen one alone
(`training.loss`), so that none is passed over for good.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from SAMFineTuneLib.heads.class_mask_decoder import class_tokens
from SAMFineTuneLib.heads.head import Candidates, ClassMasks
from SAMFineTuneLib.heads.two_way_head import (
    TwoWayHead,
    noisy_copies,
    refining_part,
    resized_output,
)
from SAMFineTuneLib.networks.staged_encoder import FeatureState

MASKS = 3


class MultimaskDecoder(TwoWayHead):
    """A mask decoder with one token and three output layers for each class.

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
        self.output_mlps = nn.ModuleList(
            nn.ModuleList(_output_layers(decoder.output_hypernetworks_mlps)) for _ in range(classes)
        )
        self.iou_prediction_head = resized_output(decoder.iou_prediction_head, classes * MASKS)

    def forward(
        self, features: FeatureState, positions: Tensor, dense_prompt: Tensor
    ) -> ClassMasks:
        """The masks of the classes, and the three that each was chosen from; see `Head`."""
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens_out, upscaled = self.decoded(
            features.x + dense_prompt,
            positions,
            tokens.expand(len(features.x), -1, -1),
            features.skips,
        )
        filters = torch.stack(
            [
                self._filters(number, token)
                for number, token in enumerate(tokens_out[:, 1:].unbind(1))
            ],
            dim=1,
        )
        logits = torch.einsum("bkmc,bchw->bkmhw", filters, upscaled)
        predictions = self.iou_prediction_head(tokens_out[:, 0]).unflatten(1, (-1, MASKS))
        return _chosen(Candidates(logits, predictions))

    def _filters(self, number: int, token: Tensor) -> Tensor:
        """The filters (B, masks, channels) of one class from its token (B, C)."""
        mlps: Any = self.output_mlps[number]
        return torch.stack([mlp(token) for mlp in mlps], dim=1)


def _output_layers(mlps: Any) -> list[nn.Module]:
    """Copies of the three layers for ambiguous prompts, or of the only one with a little noise."""
    if len(mlps) > MASKS:
        return [copy.deepcopy(each) for each in mlps[1 : 1 + MASKS]]
    copies = [copy.deepcopy(mlps[0]) for _ in range(MASKS)]
    with torch.no_grad():
        for each in copies:
            for parameter in each.parameters():
                parameter.copy_(noisy_copies(parameter, 1)[0])
    return copies


def _chosen(candidates: Candidates) -> ClassMasks:
    """Of each class the mask with the highest predicted overlap."""
    best = candidates.iou_predictions.argmax(2, keepdim=True)
    size = candidates.logits.shape[-2:]
    logits = candidates.logits.gather(2, best[..., None, None].expand(-1, -1, -1, *size))
    predictions = candidates.iou_predictions.gather(2, best)
    return ClassMasks(logits[:, :, 0], predictions[:, :, 0], candidates)
