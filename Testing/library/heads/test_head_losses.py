"""What heads are trained by: masks judged one by one, and predicted overlaps of three masks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from SAMFineTuneLib.heads.head import Candidates, ClassMasks
from SAMFineTuneLib.training.loss import (
    HeadLoss,
    IndependentMaskLoss,
    PartialLabelLoss,
    candidate_loss,
)

pytestmark = pytest.mark.usefixtures("one_thread")

GENERATOR = torch.Generator().manual_seed(4)


def test_for_one_structure_background_has_the_logit_0_of_binary_cross_entropy() -> None:
    mask = torch.randn(2, 1, 8, 8, generator=GENERATOR)
    target = torch.randint(2, (2, 8, 8), generator=GENERATOR)
    logits = torch.cat([torch.zeros_like(mask), mask], dim=1)
    both = functional.cross_entropy(logits, target)
    known = torch.ones(2, 2, dtype=torch.bool)
    found = IndependentMaskLoss()(logits, target, known)
    share = mask[:, 0].sigmoid()
    dice = [
        (2 * float((share[n] * target[n]).sum()) + 1) / float(share[n].sum() + target[n].sum() + 1)
        for n in range(2)
    ]
    assert float(found) == pytest.approx(float(both) + 1 - sum(dice) / 2, abs=1e-5)


def test_masks_of_unknown_structures_do_not_count() -> None:
    logits = torch.randn(2, 3, 8, 8, generator=GENERATOR, requires_grad=True)
    target = torch.randint(2, (2, 8, 8), generator=GENERATOR)
    known = torch.tensor([[True, True, False], [True, False, False]])
    IndependentMaskLoss()(logits, target, known).backward()
    assert logits.grad is not None
    assert [bool(each.any()) for each in logits.grad.flatten(0, 1)] == [
        False, True, False, False, False, False,
    ]  # fmt: skip
    nothing = IndependentMaskLoss()(logits, target, torch.tensor([[True, False, False]] * 2))
    assert float(nothing.detach()) == 0


def test_the_overlap_of_all_three_masks_is_learnt_and_not_of_the_chosen_one_alone() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, :4] = 1
    logits = torch.full((1, 2, 3, 8, 8), -1.0)
    logits[:, 0] = 0.0
    logits[:, 1, 0, :4] = 5.0  # the truth
    logits[:, 1, 1, :2] = 5.0  # half of it
    predictions = torch.zeros(1, 2, 3, requires_grad=True)
    chosen = logits[:, :, 0]
    known = torch.ones(1, 2, dtype=torch.bool)
    loss = candidate_loss(Candidates(logits, predictions), chosen, target, known)
    loss.backward()
    loss = loss.detach()
    # Twice the distance from the true overlap, over the number of masks.
    assert predictions.grad is not None
    overlaps = -predictions.grad[0, 1] * 6 / 2
    assert overlaps.tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1e-6)
    whole = HeadLoss("exclusive")
    found = ClassMasks(chosen, predictions[..., 0], Candidates(logits, predictions))
    plain = PartialLabelLoss()(chosen, None, target, known)
    assert float(whole(found, target, known).detach()) == pytest.approx(float(plain + 0.1 * loss))


def test_an_unknown_class_is_no_rival_of_background() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    logits = torch.zeros(1, 2, 1, 4, 4)
    logits[:, 1] = 3.0
    predictions = torch.ones(1, 2, 1)
    for known, expected in ((True, 0.5), (False, 0.0)):
        judged = torch.tensor([[True, known]])
        loss = candidate_loss(Candidates(logits, predictions), logits[:, :, 0], target, judged)
        # Background covers nothing where the other class is known and everywhere where it is not;
        # the other class covers all, where there is none of it.
        assert float(loss) == pytest.approx(2 * expected)
