"""The loss of a fine-tune: Dice and cross entropy on the classes that are known."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

# Takes the place of minus infinity in logits, because a true infinity makes gradients NaN.
_NEVER = -1e4

# The mask decoder's estimate of its own IoU is trained with a small weight, as in Segment Anything.
_IOU_WEIGHT = 0.1


class PartialLabelLoss(nn.Module):
    """Dice loss + cross entropy, equally weighted, on slices on which some classes are unknown.

    The probability of an unknown class is added to that of background, because a voxel that is
    background in the labelmap may belong to a class that was not labelled there (marginal loss,
    Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation"). Where every class is known, it is the loss of the published study.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dice = DiceLoss(
            include_background=False,
            to_onehot_y=True,
            batch=True,
            reduction="none",
            smooth_nr=1.0,
            smooth_dr=1.0,
        )

    def forward(
        self, logits: Tensor, iou_predictions: Tensor, target: Tensor, known: Tensor
    ) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (B, classes, h, w); interpolated to the target's size.
            iou_predictions: (B, classes), the network's estimates of the intersection over union.
            target: (B, S, S) class numbers.
            known: (B, classes) bool; background is always known.

        Returns:
            A scalar.
        """
        fine = functional.interpolate(
            logits.float(), target.shape[-2:], mode="bilinear", align_corners=False
        )
        merged = merge_unknown(fine, known)
        target = target.long()
        cross_entropy = functional.nll_loss(merged, target)
        shown = torch.bincount(target.flatten(), minlength=logits.shape[1])[1:] > 0
        # A class that no slice of the batch shows has no Dice loss; cross entropy covers it.
        dice = self._dice(merged.exp(), target[:, None]).flatten()[shown]
        loss = cross_entropy + (dice.mean() if len(dice) else 0.0)
        return loss + _IOU_WEIGHT * _iou_loss(iou_predictions, logits.detach(), target, known)


def merge_unknown(logits: Tensor, known: Tensor) -> Tensor:
    """Log-probabilities (B, classes, h, w); those of unknown classes are added to background's."""
    log_probabilities = logits.log_softmax(1)
    if known.all():
        return log_probabilities
    unknown = ~known[:, :, None, None]
    joined = unknown.clone()
    joined[:, 0] = True
    background = log_probabilities.masked_fill(~joined, _NEVER).logsumexp(1, keepdim=True)
    structures = log_probabilities[:, 1:].masked_fill(unknown[:, 1:], _NEVER)
    return torch.cat([background, structures], dim=1)


def _iou_loss(iou_predictions: Tensor, logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Squared error of the predicted intersection over union, of known classes only.

    The IoU is measured on the coarse grid of the mask decoder, which is exact enough for this.
    """
    classes = logits.shape[1]
    coarse = functional.interpolate(target[:, None].float(), logits.shape[-2:])[:, 0].long()
    merged = merge_unknown(logits.float(), known).argmax(1)
    predicted = functional.one_hot(merged, classes).flatten(1, 2).bool()
    truth = functional.one_hot(coarse, classes).flatten(1, 2).bool()
    union = (predicted | truth).sum(1)
    actual = (predicted & truth).sum(1) / union.clamp(min=1)
    counted = known & (union > 0)
    return ((iou_predictions.float() - actual) ** 2)[counted].mean()
