"""Learning from unlabelled slices: the teacher, its pseudo labels, and the loss on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from SAMFineTuneLib.errors import Cancelled
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.slices.square import square_positions
from SAMFineTuneLib.training.consistency import PseudoLabels, consistency_loss, moved_labels
from SAMFineTuneLib.training.fine_tuning import FineTuning
from SAMFineTuneLib.training.loop import Watch
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.teacher import Teacher
from SAMFineTuneLib.training.trained_weights import TrainedWeights
from SAMFineTuneLib.training.validation_split import ValidationSplit
from Testing.support.job_records import choices_of
from Testing.support.training_slices import a_slice, starter, training_set

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


def test_the_teacher_is_the_mean_of_the_first_steps_and_follows_slowly_later() -> None:
    network = nn.Linear(1, 1, bias=False)
    trained = TrainedWeights(network, 0.0)
    teacher = Teacher(trained, {})
    for step, value in enumerate((2.0, 4.0, 6.0), start=1):
        trained.load({"weight": torch.full((1, 1), value)})
        teacher.follow(step)
    assert teacher.copied()["weight"].item() == pytest.approx(4.0)
    trained.load({"weight": torch.full((1, 1), 104.0)})
    teacher.follow(1000)
    assert teacher.copied()["weight"].item() == pytest.approx(6.0)


def test_the_network_has_its_own_weights_again_after_the_teacher() -> None:
    network = nn.Linear(1, 1, bias=False)
    trained = TrainedWeights(network, 0.0)
    teacher = Teacher(trained, {"weight": torch.full((1, 1), 7.0)})
    own = network.weight.item()
    with teacher.in_network():
        assert network.weight.item() == 7.0
    assert network.weight.item() == own


def test_pseudo_labels_move_with_the_image() -> None:
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 1] = -8.0
    logits[:, 1, 2:4, 2:4] = 8.0
    place = square_positions(8)
    still = moved_labels(logits, place[None])
    assert torch.equal(still.target[0] == 1, logits[0, 1] > 0)
    # Positions a pixel further to the right show what lies there.
    moved = moved_labels(logits, (place + torch.tensor([0.25, 0.0]))[None])
    assert torch.equal(moved.target[0, :, :-1], still.target[0, :, 1:])
    # Beyond the square all is background, surely.
    assert moved.target[0, :, -1].sum() == 0
    assert moved.sure[0, :, -1].all()


def test_what_the_teacher_doubts_does_not_count() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, :4] = 1
    logits = torch.randn(1, 2, 8, 8, requires_grad=True)
    nothing = consistency_loss(logits, PseudoLabels(target, torch.zeros(1, 8, 8).bool()))
    assert nothing.item() == 0.0
    sure = torch.zeros(1, 8, 8).bool()
    sure[:, :, :4] = True
    consistency_loss(logits, PseudoLabels(target, sure)).backward()
    assert logits.grad is not None
    assert logits.grad[..., :4].abs().min() > 0
    assert logits.grad[..., 4:].abs().max() == 0


def test_the_loss_is_small_where_the_network_agrees() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, :4] = 1
    agreeing = torch.stack([target == 0, target == 1], dim=1).float() * 20
    labels = PseudoLabels(target, torch.ones(1, 8, 8).bool())
    assert consistency_loss(agreeing, labels).item() < 0.01
    assert consistency_loss(-agreeing, labels).item() > 1


def unlabelled_slices() -> list[LabelledSlice]:
    random = np.random.default_rng(0)
    empty = a_slice(set(), side=32)
    return [
        replace(
            empty,
            image=random.random((32, 32)).astype(np.float16),
            known=np.zeros(3, bool),
            number=number,
        )
        for number in range(3)
    ]


def tuning_of(folder: Path, check: Callable[[], None]) -> FineTuning:
    labelled = [a_slice({1, 2}, number=number, side=32) for number in range(2)]
    examples = training_set(labelled)
    unlabelled = unlabelled_slices()
    choices = choices_of(steps=5, batch=1, scope="decoder", method="adapter")
    plan = settle(choices, examples, False, unlabelled=len(unlabelled))
    assert plan.unlabelled_batch == 1
    segmenter = starter(plan)
    watch = Watch(check=check)
    nothing_held_out = ValidationSplit([0, 1], [], "none")
    return FineTuning(
        segmenter, examples, nothing_held_out, plan, folder, "signature", watch, unlabelled
    )


def weights_of(tuning: FineTuning) -> dict[str, Tensor]:
    tuning.run()
    return {**tuning._loop.trained.copied(), **teacher_of(tuning)}


def teacher_of(tuning: FineTuning) -> dict[str, Tensor]:
    assert tuning._loop.teacher is not None
    return {f"teacher {name}": each for name, each in tuning._loop.teacher.copied().items()}


def test_an_interrupted_run_goes_on_with_its_teacher(tmp_path: Path) -> None:
    expected = weights_of(tuning_of(tmp_path / "whole", lambda: None))
    calls = iter(range(10))

    def cancel_at_the_fourth() -> None:
        if next(calls) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        tuning_of(tmp_path / "parts", cancel_at_the_fourth).run()
    resumed = tuning_of(tmp_path / "parts", lambda: None)
    assert resumed.resumed_at == 3
    found = weights_of(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
