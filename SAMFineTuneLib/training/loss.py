"""The losses of a fine-tune: Dice and cross entropy on the classes that are known."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

from SAMFineTuneLib.heads.head import Candidates, ClassMasks
from SAMFineTuneLib.heads.names import LossName

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
        self, logits: Tensor, iou_predictions: Tensor | None, target: Tensor, known: Tensor
    ) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (B, classes, h, w); interpolated to the target's size.
            iou_predictions: (B, classes), the network's estimates of the intersection over union;
                None where it makes none, or where they are judged by `candidate_loss`.
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
        loss: Tensor = cross_entropy + (dice.mean() if len(dice) else 0.0)
        if iou_predictions is None:
            return loss
        return loss + _IOU_WEIGHT * _iou_loss(iou_predictions, logits.detach(), target, known)


class IndependentMaskLoss(nn.Module):
    """Dice loss + binary cross entropy of the mask of each structure by itself.

    That of AutoSAM (Shaharabany et al. 2023), there for one structure: the Dice loss of each mask,
    with 1 added to both parts of the fraction, and the mean over masks. A mask of a class that is
    unknown on its slice does not count.
    """

    def forward(self, logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
        """The loss of a batch; 0 where no structure is known on any slice.

        Args:
            logits: (B, classes, h, w), of which background's are not looked at; interpolated to the
                target's size.
            target: (B, S, S) class numbers.
            known: (B, classes) bool.
        """
        fine = functional.interpolate(
            logits[:, 1:].float(), target.shape[-2:], mode="bilinear", align_corners=False
        )
        numbers = torch.arange(1, logits.shape[1], device=target.device)
        truth = (target[:, None] == numbers[:, None, None]).float()
        counted = known[:, 1:]
        if not counted.any():
            return 0.0 * fine.sum()
        masks, truth = fine[counted], truth[counted]
        found = masks.sigmoid()
        overlap = (found * truth).sum((1, 2))
        dice = (2 * overlap + 1) / (found.sum((1, 2)) + truth.sum((1, 2)) + 1)
        return functional.binary_cross_entropy_with_logits(masks, truth) + 1 - dice.mean()


class HeadLoss(nn.Module):
    """The loss of what a head finds.

    Args:
        name: see `heads.names.HeadSpec`.
    """

    def __init__(self, name: LossName) -> None:
        super().__init__()
        self._exclusive = PartialLabelLoss() if name == "exclusive" else None
        self._independent = IndependentMaskLoss()

    def forward(self, found: ClassMasks, target: Tensor, known: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            found: by the head.
            target: (B, S, S) class numbers.
            known: (B, classes) bool.
        """
        loss: Tensor
        if self._exclusive is None:
            loss = self._independent(found.logits, target, known)
            return loss
        if found.candidates is None:
            loss = self._exclusive(found.logits, found.iou_predictions, target, known)
            return loss
        loss = self._exclusive(found.logits, None, target, known)
        return loss + _IOU_WEIGHT * candidate_loss(
            found.candidates, found.logits.detach(), target, known
        )


def candidate_loss(candidates: Candidates, logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Squared error of the predicted intersection over union of all masks of known classes.

    A candidate covers the pixels where its logit is above those of all other classes' chosen
    masks. The IoU is measured on the coarse grid of the head.

    Args:
        candidates: the masks, and the predictions that are judged.
        logits: (B, classes, h, w), the chosen masks, without gradients.
        target: (B, S, S) class numbers.
        known: (B, classes) bool.
    """
    classes = logits.shape[1]
    coarse = functional.interpolate(target[:, None].float(), logits.shape[-2:])[:, 0].long()
    truth = functional.one_hot(coarse, classes).bool().movedim(3, 1)[:, :, None]
    covered = candidates.logits.detach() > _rivals(logits, known)[:, :, None]
    union = (covered | truth).sum((3, 4))
    actual = (covered & truth).sum((3, 4)) / union.clamp(min=1)
    counted = known[:, :, None] & (union > 0)
    return ((candidates.iou_predictions.float() - actual) ** 2)[counted].mean()


def _rivals(logits: Tensor, known: Tensor) -> Tensor:
    """For each class the largest logit of the others, (B, classes, h, w).

    An unknown class counts as background, and so it is no rival of background.
    """
    of_background = logits.masked_fill(~known[:, :, None, None], _NEVER)
    found = []
    for number in range(logits.shape[1]):
        own = of_background if number == 0 else logits
        others = torch.cat([own[:, :number], own[:, number + 1 :]], dim=1)
        found.append(others.amax(1))
    return torch.stack(found, dim=1)


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
