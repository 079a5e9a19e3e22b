"""Which weights a fine-tune with a teacher keeps: the network's or the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.errors import Cancelled
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.tasks.finetune_card import card_of
from SAMFineTuneLib.training import fine_tuning
from SAMFineTuneLib.training.fine_tuning import FineTuning
from SAMFineTuneLib.training.loop import Watch
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.validation import ValidationDsc
from SAMFineTuneLib.training.validation_split import ValidationSplit
from Testing.support.job_records import choices_of
from Testing.support.training_slices import a_slice, starter, training_set

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")

# Eight held-out slices are enough to choose by, seven are not.
_ENOUGH, _TOO_FEW = 8, 7


def shown(classes: set[int], number: int) -> LabelledSlice:
    random = np.random.default_rng(number)
    image = random.random((32, 32)).astype(np.float16)
    return replace(a_slice(classes, number=number, side=32), image=image)


class Run:
    """A fine-tune of few steps that validates after each, on slices that never join.

    Attributes:
        measured: the weights that were measured, in turn.
        kept: the weights of the network when the best were told, in turn.
    """

    def __init__(
        self,
        folder: Path,
        held_out: int = _ENOUGH,
        steps: int = 5,
    ) -> None:
        self.examples = training_set([shown({1, 2}, number) for number in range(2 + held_out)])
        unlabelled = [replace(shown(set(), 20 + each), known=np.zeros(3, bool)) for each in (0, 1)]
        choices = choices_of(steps=steps, batch=2, scope="decoder", method="adapter")
        self.plan = settle(choices, self.examples, False, unlabelled=len(unlabelled))
        self.split = ValidationSplit([0, 1], list(range(2, 2 + held_out)), "validation list")
        self.measured: list[dict[str, Tensor]] = []
        self.kept: list[dict[str, Tensor]] = []
        self.tuning = FineTuning(
            starter(self.plan),
            self.examples,
            self.split,
            self.plan,
            folder,
            "signature",
            Watch(validated=lambda _, step: self.kept.append(self.weights())),
            unlabelled,
        )
        self.tuning._is_validation_due = lambda: True  # type: ignore[method-assign]

    def weights(self) -> dict[str, Tensor]:
        return self.tuning._loop.trained.copied()

    def pretend(self, scores: list[float]) -> None:
        """The validation gives these scores in turn."""
        told = iter(scores)

        def measure(check: Callable[[], None]) -> ValidationDsc:
            self.measured.append(self.weights())
            return ValidationDsc({1: next(told), 2: None})

        self.tuning._validation.measure = measure  # type: ignore[method-assign,union-attr]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_the_better_of_network_and_teacher_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    # Of each pair the network's score comes first; the highest of all is the teacher's of step 3.
    run.pretend([0.3, 0.2, 0.4, 0.4, 0.5, 0.9, 0.8, 0.6, 0.7, 0.1])
    outcome = run.tuning.run()
    network, teacher = run.measured[0::2], run.measured[1::2]
    assert not any(same(*pair) for pair in zip(network[1:], teacher[1:], strict=True))
    assert [same(each, network[step]) for step, each in enumerate(run.kept[:2])] == [True, True]
    assert len(run.kept) == 3 and same(run.kept[2], teacher[2])
    assert same(run.weights(), teacher[2]), "the model has the weights that were measured best"
    assert (outcome.weights, outcome.best_step) == ("teacher", 3)
    assert outcome.validation is not None and outcome.validation.mean == 0.9
    assert [each["validation_dsc"] for each in outcome.history] == [0.3, 0.4, 0.9, 0.8, 0.7]
    card = card_of(run.plan, run.examples, run.split, outcome, None)
    assert card.metrics["weights"] == "teacher"


def test_the_networks_weights_are_kept_where_they_are_as_good(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.pretend([0.5] * 10)
    assert run.tuning.run().weights == "network"
    assert same(run.weights(), run.measured[0])


def test_where_too_few_slices_are_held_out_to_choose_the_last_weights_are_kept(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, _TOO_FEW)
    run.pretend([0.9, 0.8, 0.7, 0.6, 0.5])
    outcome = run.tuning.run()
    assert outcome.weights is None and outcome.best_step == 5
    assert same(run.weights(), run.measured[-1])
    assert "weights" not in card_of(run.plan, run.examples, run.split, outcome, None).metrics


def test_both_measurements_count_as_time_of_validations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.pretend([0.5, 0.6])
    clock = iter([10.0, 13.0])
    monkeypatch.setattr(fine_tuning, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    run.tuning._validate()
    assert run.tuning._validating_s == 3.0 and len(run.measured) == 2


def test_a_run_that_stops_while_the_teacher_is_measured_goes_on_exactly(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", steps=3)
    expected = whole.tuning.run()
    parts = Run(tmp_path / "parts", steps=3)
    validation = parts.tuning._validation
    assert validation is not None
    honest, calls = validation.measure, iter(range(100))

    def measure(check: Callable[[], None]) -> ValidationDsc:
        if next(calls) == 3:
            # The teacher's weights after the second step are in the network now.
            def cancel() -> None:
                raise Cancelled

            parts.tuning._watch = replace(parts.tuning._watch, check=cancel)
            parts.tuning._loop._watch = parts.tuning._watch
        return honest(check)

    validation.measure = measure  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        parts.tuning.run()
    resumed = Run(tmp_path / "parts", steps=3)
    assert resumed.tuning.resumed_at == 2
    found = resumed.tuning.run()
    assert found.history == expected.history and found.weights == expected.weights
    assert found.best_step == expected.best_step
    assert same(resumed.weights(), whole.weights())
    assert resumed.tuning._loop.teacher is not None and whole.tuning._loop.teacher is not None
    assert same(resumed.tuning._loop.teacher.copied(), whole.tuning._loop.teacher.copied())
