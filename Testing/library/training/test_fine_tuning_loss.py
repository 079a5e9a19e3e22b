"""Fine-tuning: what is minimised, also where some classes are unknown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.training.loss import PartialLabelLoss, merge_unknown

pytestmark = pytest.mark.usefixtures("one_thread")


# What is minimised


def separate_loss(logits: Tensor, iou_predictions: Tensor, target: Tensor) -> float:
    """Dice + cross entropy + 0.1 × squared error of the expected overlap, in plain numpy."""
    scores = logits.double().numpy()
    probability = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    truth = np.stack([target.numpy() == each for each in range(scores.shape[1])], 1)
    cross_entropy = -np.log((probability * truth).sum(1)).mean()
    dice = []
    for each in range(1, scores.shape[1]):
        p, t = probability[:, each], truth[:, each]
        if t.any():
            dice.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    errors = []
    predicted = scores.argmax(1)
    for sample in range(len(scores)):
        for each in range(scores.shape[1]):
            found, there = predicted[sample] == each, truth[sample, each]
            if (found | there).any():
                overlap = (found & there).sum() / (found | there).sum()
                errors.append((float(iou_predictions[sample, each]) - overlap) ** 2)
    return float(cross_entropy + (np.mean(dice) if dice else 0) + 0.1 * np.mean(errors))


@pytest.mark.parametrize("shown", [[0, 1, 2, 3], [0, 1, 3], [0]])
def test_the_loss_is_dice_and_cross_entropy_when_all_is_known(shown: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(3, 4, 16, 16, generator=generator)
    iou_predictions = torch.rand(3, 4, generator=generator)
    target = torch.tensor(shown)[torch.randint(len(shown), (3, 16, 16), generator=generator)]
    found = PartialLabelLoss()(logits, iou_predictions, target, torch.ones(3, 4, dtype=torch.bool))
    assert float(found) == pytest.approx(separate_loss(logits, iou_predictions, target), rel=1e-4)


def test_coarse_logits_are_judged_on_the_fine_grid() -> None:
    known = torch.ones(1, 2, dtype=torch.bool)
    target = torch.zeros(1, 64, 64, dtype=torch.int32)
    target[:, 20:40, 10:30] = 1
    fine = torch.stack([torch.zeros(1, 64, 64), 20.0 * target - 10], dim=1)
    coarse = fine[:, :, 2::4, 2::4]
    right = PartialLabelLoss()(coarse, torch.ones(1, 2), target, known)
    shifted = PartialLabelLoss()(coarse.roll(3, 2), torch.ones(1, 2), target, known)
    assert right < 0.25 < 1 < shifted


def test_merged_probabilities_are_probabilities() -> None:
    logits = 3 * torch.randn(4, 5, 6, 7)
    known = torch.rand(4, 5) < 0.5
    known[:, 0] = True
    merged = merge_unknown(logits, known).exp()
    assert torch.allclose(merged.sum(1), torch.ones(4, 6, 7), atol=1e-5)
    assert merged[~known].max() < 1e-6
    probabilities = logits.softmax(1)
    for sample in range(4):
        expected = probabilities[sample, ~known[sample]].sum(0) + probabilities[sample, 0]
        assert torch.allclose(merged[sample, 0], expected, atol=1e-5)


def test_an_unknown_class_is_not_told_apart_from_background() -> None:
    """Class 2 is unknown: where background is labelled it may be, so it is not pushed away."""
    logits = torch.randn(2, 3, 8, 8)
    target = torch.zeros(2, 8, 8, dtype=torch.int32)
    target[:, 2:5, 2:5] = 1
    known = torch.tensor([[True, True, False]] * 2)
    iou_predictions = torch.zeros(2, 3)
    background = target == 0
    # Odds between background and class 2 may take any value at no cost.
    joined = logits[:, [0, 2]].logsumexp(1)
    shares = torch.rand(2, 8, 8) * 0.98 + 0.01
    moved = logits.clone()
    moved[:, 0] = joined + shares.log()
    moved[:, 2] = joined + (1 - shares).log()
    cost = 0.1 * 2
    before = PartialLabelLoss()(logits, iou_predictions, target, known)
    after = PartialLabelLoss()(moved, iou_predictions, target, known)
    assert abs(float(before - after)) < cost * 1e-3
    # And with no structure known, nothing pulls at class 2 at all.
    logits.requires_grad_()
    nothing = torch.tensor([[True, False, False]] * 2)
    PartialLabelLoss()(logits, iou_predictions, torch.zeros_like(target), nothing).backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6
    # Where everything is known, class 2 is pushed away from background.
    logits.grad = None
    everything = torch.ones(2, 3, dtype=torch.bool)
    PartialLabelLoss()(logits, iou_predictions, target, everything).backward()
    assert (logits.grad[:, 2][background] > 0).all()


def test_one_slice_with_an_unknown_class_does_not_hide_it_on_another() -> None:
    logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
    target = torch.zeros(2, 8, 8, dtype=torch.int32)
    target[1, :4] = 2
    known = torch.tensor([[True, True, False], [True, True, True]])
    PartialLabelLoss()(logits, torch.zeros(2, 3), target, known).backward()
    assert logits.grad is not None
    assert (logits.grad[1, 2, :4] < 0).all(), "class 2 is pulled up where it is labelled"
    assert (logits.grad[1, 2, 4:] > 0).all()
    assert (logits.grad[0, 1] > 0).all()
