"""What a fine-tune minimises: Dice and cross entropy, where classes are known."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

# Stands for minus infinity in logits; a true infinity makes gradients NaN.
_NEVER = -1e4

# The mask decoder's estimate of its own quality is trained on the side, as in Segment Anything.
_OVERLAP_WEIGHT = 0.1


class PartialLabelLoss(nn.Module):
    """Dice + cross entropy, equal weights, on slices on which not every class is labelled.

    Where a class is unknown its probability counts as background's: a voxel that is background
    in the labelmap may be background or any class that was not labelled there (marginal loss,
    Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation"). With every class known this is the study's loss.
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

    def forward(self, logits: Tensor, overlaps: Tensor, target: Tensor, known: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (B, classes, h, w); interpolated to the target's size.
            overlaps: (B, classes), the intersection over union that the network expects.
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
        # A class absent from the whole batch has no overlap to improve; cross entropy covers it.
        dice = self._dice(merged.exp(), target[:, None]).flatten()[shown]
        loss = cross_entropy + (dice.mean() if len(dice) else 0.0)
        return loss + _OVERLAP_WEIGHT * _overlap_loss(overlaps, logits.detach(), target, known)


def merge_unknown(logits: Tensor, known: Tensor) -> Tensor:
    """Log-probabilities (B, classes, h, w) with the unknown classes' share given to background."""
    log_probabilities = logits.log_softmax(1)
    if known.all():
        return log_probabilities
    unknown = ~known[:, :, None, None]
    joined = unknown.clone()
    joined[:, 0] = True
    background = log_probabilities.masked_fill(~joined, _NEVER).logsumexp(1, keepdim=True)
    structures = log_probabilities[:, 1:].masked_fill(unknown[:, 1:], _NEVER)
    return torch.cat([background, structures], dim=1)


def _overlap_loss(overlaps: Tensor, logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Squared error of the expected intersection over union, known classes only.

    Measured on the mask decoder's own coarse grid: an estimate need not be finer.
    """
    classes = logits.shape[1]
    coarse = functional.interpolate(target[:, None].float(), logits.shape[-2:])[:, 0].long()
    merged = merge_unknown(logits.float(), known).argmax(1)
    predicted = functional.one_hot(merged, classes).flatten(1, 2).bool()
    truth = functional.one_hot(coarse, classes).flatten(1, 2).bool()
    union = (predicted | truth).sum(1)
    actual = (predicted & truth).sum(1) / union.clamp(min=1)
    counted = known & (union > 0)
    return ((overlaps.float() - actual) ** 2)[counted].mean()
