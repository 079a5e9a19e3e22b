"""The loss of single masks predicted from prompts, and their DSC."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.random_source import RandomSource

_SMOOTH = 1.0
_IOU_WEIGHT = 0.1


def mask_loss(logits: Tensor, iou_predictions: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy, Dice loss, and the error of the predicted IoU, for single masks.

    Args:
        logits: (B, 1, h, w); interpolated to the masks' size.
        iou_predictions: (B, 1) the network's estimates of the intersection over union.
        masks: (B, H, W) bool.

    Returns:
        The loss, a scalar; and the DSC of each thresholded mask, (B,).
    """
    fine = functional.interpolate(
        logits.float(), masks.shape[-2:], mode="bilinear", align_corners=False
    )[:, 0].flatten(1)
    true = masks.flatten(1).float()
    share = fine.sigmoid()
    both, sizes = (share * true).sum(1), share.sum(1) + true.sum(1)
    dice = 1 - (2 * both + _SMOOTH) / (sizes + _SMOOTH)
    cross_entropy = functional.binary_cross_entropy_with_logits(fine, true)
    with torch.no_grad():
        found = (fine > 0).float()
        common, total = (found * true).sum(1), found.sum(1) + true.sum(1)
        dsc = 2 * common / total.clamp(min=1)
        iou = common / (total - common).clamp(min=1)
    iou_loss = functional.mse_loss(iou_predictions[:, 0].float(), iou)
    return cross_entropy + dice.mean() + _IOU_WEIGHT * iou_loss, dsc


def thinned(masks: Tensor, random: RandomSource) -> Tensor:
    """Every second pixel of masks (B, H, W) in both directions, for a quarter of the cost.

    The first row and column are drawn at random: taking always the same ones would shift every
    mask by half a pixel.
    """
    return masks[:, random.whole(0, 1) :: 2, random.whole(0, 1) :: 2]
