"""Fine-tuning: that it learns, is interrupted and resumed, and ends as it should."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.errors import Cancelled, InputError
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.prediction.slice_prediction import class_probabilities
from SAMFineTuneLib.slices.intensity import sample_voxels
from SAMFineTuneLib.training import fine_tuning, schedule, validation_split
from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome, FineTuning, signature_of
from SAMFineTuneLib.training.held_out_distances import HeldOutDistances
from SAMFineTuneLib.training.loop import Watch
from SAMFineTuneLib.training.plan import settle
from SAMFineTuneLib.training.training_state import STATE_FILE
from SAMFineTuneLib.training.validation import Validation, ValidationDsc
from SAMFineTuneLib.training.validation_split import ValidationSplit, split
from Testing.support.job_records import choices_of, example_of
from Testing.support.synthetic_volumes import dsc, head, keep_slices, write_pair
from Testing.support.training_slices import starter

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


# That it learns


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    volume, labelmap = head()
    folder = tmp_path_factory.mktemp("examples")
    return load_examples(
        [example_of(*write_pair(folder, volume, keep_slices(labelmap, [2, 4, 6, 8]), "a"))]
    )


class Run:
    """A fine-tune of the synthetic head with what it told."""

    def __init__(
        self,
        examples: TrainingSet,
        folder: Path,
        check: Callable[[], None] = lambda: None,
        finish: Callable[[], bool] = lambda: False,
        held_out: ValidationSplit | None = None,
        **changes: Any,
    ) -> None:
        self.reports: list[Any] = []
        self.best_at: list[int] = []
        choices = choices_of(steps=6, batch=2)
        plan = replace(settle(choices, examples, False), warm_up=3, **changes)
        self.segmenter = starter(plan)
        self.tuning = FineTuning(
            self.segmenter,
            examples,
            held_out or split(examples.slices, plan.seed),
            plan,
            folder,
            signature_of(plan, examples, "random"),
            Watch(
                report=self._note,
                validated=lambda _, step: self.best_at.append(step),
                check=check,
                finish=finish,
            ),
        )

    def _note(self, report: Any) -> None:
        self.reports.append(
            SimpleNamespace(**asdict(report), seconds=time.monotonic() - self._started)
        )

    def to_end(self) -> FinetuneOutcome:
        self._started = time.monotonic()
        return self.tuning.run()

    def weights(self) -> dict[str, Tensor]:
        return {name: each.clone() for name, each in self.segmenter.state_dict().items()}


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def test_a_few_labelled_slices_are_learnt(examples: TrainingSet, tmp_path: Path) -> None:
    run = Run(examples, tmp_path, steps=40)
    outcome = run.to_end()
    losses = [report.loss for report in run.reports]
    assert losses[-1] < 0.6 * losses[0]
    assert [report.step for report in run.reports] == list(range(1, 41))
    assert run.reports[-1].phase == "final pass" and outcome.ending == "complete"
    assert outcome.held_out_joined and outcome.validation is not None
    assert outcome.best_step == run.best_at[-1] <= 30
    json.dumps(outcome.history)
    volume, labelmap = head()
    window = examples.normalisation.window_for(sample_voxels(volume))
    images = [window.apply(pixels) for pixels in volume.array]
    assert not run.segmenter.training
    found = class_probabilities(run.segmenter, images, window, (1.0, 1.0)).argmax(1).numpy()
    unseen = [3, 5, 7]
    for number, value in ((1, 5), (2, 52)):
        assert dsc(found[unseen] == number, labelmap.array[unseen] == value) > 0.8


def test_validations_take_a_bounded_share_of_a_limited_time(
    examples: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a held-out volume of a slow network, each took longer than all steps between them."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    for module in (fine_tuning, schedule):
        monkeypatch.setattr(module, "time", clock)

    def slowly(validation: Validation, check: Callable[[], None]) -> ValidationDsc:
        now[0] += 5
        return ValidationDsc({1: 0.5, 2: 0.5})

    def step() -> None:
        now[0] += 0.5

    monkeypatch.setattr(Validation, "measure", slowly)
    free = Run(examples, tmp_path / "free", check=step, steps=16).to_end()
    limited = Run(examples, tmp_path / "limited", check=step, steps=16, minutes=10.0).to_end()
    assert len(free.history) >= 4 and limited.steps == 16
    # One at first, and one when the held-out slices join.
    assert len(limited.history) == 2


@pytest.mark.parametrize("finishes", [False, True])
def test_distances_and_temperature_are_measured_once_and_of_the_weights_that_the_dsc_is_of(
    finishes: bool, examples: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each validation they would cost time; the final pass changes the weights afterwards."""
    measured: list[tuple[dict[int, float | None], HeldOutDistances, float]] = []
    of_distances = Validation.distances_and_temperature

    def noted(validation: Validation, check: Callable[[], None]) -> tuple[HeldOutDistances, float]:
        found = of_distances(validation, check)
        measured.append((validation.measure(check).by_class, *found))
        return found

    monkeypatch.setattr(Validation, "distances_and_temperature", noted)
    steps: list[Any] = []
    run = Run(examples, tmp_path, steps=10, finish=lambda: finishes and len(steps) > 1)
    steps = run.reports
    outcome = run.to_end()
    assert len(outcome.history) > 1 and outcome.held_out_joined != finishes
    assert outcome.validation is not None
    assert measured == [(outcome.validation.by_class, outcome.distances, outcome.temperature)]


@pytest.mark.parametrize(("enough", "learnt_before"), [(1, 6), (99, 3)])
def test_held_out_slices_join_sooner_where_they_are_too_few_to_choose_by(
    enough: int,
    learnt_before: int,
    examples: TrainingSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation_split, "_ENOUGH_TO_CHOOSE", enough)
    run = Run(examples, tmp_path, steps=10)
    outcome = run.to_end()
    phases = [report.phase for report in run.reports]
    assert phases == learnt_before * ["fine-tune"] + (10 - learnt_before) * ["final pass"]
    assert all(entry["step"] <= learnt_before for entry in outcome.history)
    assert outcome.best_step is not None and outcome.best_step <= learnt_before


def test_one_seed_gives_one_model(examples: TrainingSet, tmp_path: Path) -> None:
    runs = [Run(examples, tmp_path / str(number), steps=3) for number in range(2)]
    before = runs[0].weights()
    assert differing(before, runs[1].weights()) == []
    outcomes = [run.to_end() for run in runs]
    assert differing(runs[0].weights(), runs[1].weights()) == []
    assert differing(before, runs[0].weights())
    assert outcomes[0].history == outcomes[1].history
    other = Run(examples, tmp_path / "other", steps=3, seed=1)
    other.to_end()
    assert differing(runs[0].weights(), other.weights())


class CancelAt:
    """Raises at the given call."""

    def __init__(self, call: int) -> None:
        self.left = call

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cancelled


@pytest.fixture(scope="module")
def uninterrupted(
    examples: TrainingSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Tensor], FinetuneOutcome, int]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("uninterrupted")
    calls = CancelAt(10**6)
    run = Run(examples, folder, check=calls, scope="decoder", method="adapter")
    outcome = run.to_end()
    return run.weights(), outcome, 10**6 - calls.left


# Calls alternate between the step and, after it, its validation; the last are the final pass.
@pytest.mark.parametrize("call", [1, 3, 4, 8, -1])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    call: int, examples: TrainingSet, tmp_path: Path, uninterrupted: Any
) -> None:
    expected, outcome, calls = uninterrupted
    moment = call if call > 0 else calls + 1 + call
    first = Run(
        examples, tmp_path, check=CancelAt(moment), scope="decoder", method="adapter", steps=6
    )
    with pytest.raises(Cancelled):
        first.to_end()
    second = Run(examples, tmp_path, scope="decoder", method="adapter")
    assert second.tuning.resumed_at == len(first.reports)
    resumed = second.to_end()
    assert differing(expected, second.weights()) == []
    assert resumed.best_step == outcome.best_step
    assert resumed.validation == outcome.validation
    assert resumed.distances is not None and resumed.distances == outcome.distances
    assert resumed.temperature is not None and resumed.temperature == outcome.temperature
    assert [entry["step"] for entry in resumed.history] == [
        entry["step"] for entry in outcome.history
    ]
    assert resumed.history == outcome.history


def interrupt(examples: TrainingSet, folder: Path) -> None:
    """Leaves the checkpoint of a fine-tune that took one step."""
    first = Run(examples, folder, check=CancelAt(3), scope="decoder", method="adapter")
    with pytest.raises(Cancelled):
        first.to_end()


def test_a_checkpoint_of_another_fine_tune_is_ignored(
    examples: TrainingSet, tmp_path: Path
) -> None:
    interrupt(examples, tmp_path)
    assert Run(examples, tmp_path, scope="decoder", method="adapter").tuning.resumed_at == 1
    other = Run(examples, tmp_path, scope="decoder", method="adapter", seed=5)
    assert other.tuning.resumed_at == 0


def test_a_checkpoint_of_a_network_of_another_shape_is_ignored(
    examples: TrainingSet, tmp_path: Path
) -> None:
    interrupt(examples, tmp_path)
    path = tmp_path / STATE_FILE
    state = torch.load(path, weights_only=True)
    del state["weights"][next(iter(state["weights"]))]
    torch.save(state, path)
    assert Run(examples, tmp_path, scope="decoder", method="adapter").tuning.resumed_at == 0


def test_corrected_labels_start_afresh(examples: TrainingSet) -> None:
    plan = settle(choices_of(), examples, False)
    first = examples.slices[0]
    target = first.target.copy()
    target[0, 0] = 1 - target[0, 0]
    corrected = replace(examples, slices=[replace(first, target=target), *examples.slices[1:]])
    again = replace(examples, slices=list(examples.slices))
    assert signature_of(plan, again, "random") == signature_of(plan, examples, "random")
    assert signature_of(plan, corrected, "random") != signature_of(plan, examples, "random")
    assert signature_of(plan, examples, "abc") != signature_of(plan, examples, "random")


def test_a_fine_tune_that_diverges_is_no_model(examples: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lower the learning rate"):
        Run(examples, tmp_path, learning_rate=1e30).to_end()


def test_a_saved_checkpoint_can_be_forgotten(examples: TrainingSet, tmp_path: Path) -> None:
    run = Run(examples, tmp_path, steps=1, scope="decoder")
    run.to_end()
    run.tuning.save()
    assert Run(examples, tmp_path, steps=1, scope="decoder").tuning.resumed_at == 1
    run.tuning.forget()
    assert Run(examples, tmp_path, steps=1, scope="decoder").tuning.resumed_at == 0


def test_finishing_early_keeps_the_best(examples: TrainingSet, tmp_path: Path) -> None:
    reports: list[int] = []
    run = Run(examples, tmp_path, finish=lambda: len(run.reports) >= 3, steps=40)
    run.tuning._is_validation_due = lambda: len(run.reports) == 1  # type: ignore[method-assign]
    kept: dict[str, Tensor] = {}
    original = run.tuning._validate

    def validate_and_keep() -> None:
        original()
        kept.update(run.weights())
        reports.append(len(run.reports))

    run.tuning._validate = validate_and_keep  # type: ignore[method-assign]
    outcome = run.to_end()
    assert outcome.ending == "finished on request" and outcome.steps == 3
    assert reports == [1] and outcome.best_step == 1
    assert differing(kept, run.weights()) == [], "the weights of the best validation are kept"
    assert not outcome.held_out_joined


def test_finishing_at_once_still_gives_a_measured_model(
    examples: TrainingSet, tmp_path: Path
) -> None:
    run = Run(examples, tmp_path, finish=lambda: True)
    outcome = run.to_end()
    assert outcome.steps == 0 and outcome.validation is not None
    json.dumps({"loss": outcome.history[0]["loss"]})


def test_without_improvement_it_stops(
    examples: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation_split, "_ENOUGH_TO_CHOOSE", 1)
    run = Run(examples, tmp_path, steps=40, patience=2, learning_rate=0.0, scope="decoder")
    outcome = run.to_end()
    assert outcome.ending == "early stop" and outcome.steps < 12
    assert outcome.best_step == run.best_at[0]


@pytest.mark.parametrize(("enough", "kept"), [(1, 1), (99, 3)])
def test_the_best_weights_are_chosen_only_where_enough_is_held_out(
    enough: int,
    kept: int,
    examples: TrainingSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation_split, "_ENOUGH_TO_CHOOSE", enough)
    run = Run(examples, tmp_path, finish=lambda: len(run.reports) >= 3, steps=40)
    run.tuning._is_validation_due = lambda: True  # type: ignore[method-assign]
    scores = iter([0.9, 0.5, 0.7])
    run.tuning._validation.measure = (  # type: ignore[method-assign,union-attr]
        lambda check: ValidationDsc({1: next(scores)})
    )
    outcome = run.to_end()
    assert outcome.best_step == kept
    assert outcome.validation is not None
    assert outcome.validation.mean == (0.9 if kept == 1 else 0.7)


def test_a_single_slice_trains_without_validation(tmp_path: Path) -> None:
    volume, labelmap = head()
    pair = write_pair(tmp_path, volume, keep_slices(labelmap, [5]), "one")
    one = load_examples([example_of(*pair)])
    run = Run(one, tmp_path / "job", steps=2, scope="decoder")
    outcome = run.to_end()
    assert outcome.validation is None and outcome.best_step is None and outcome.steps == 2
    assert outcome.distances is None
    assert outcome.history == [] and not outcome.held_out_joined


def test_minutes_are_kept(examples: TrainingSet, tmp_path: Path) -> None:
    run = Run(examples, tmp_path, steps=None, minutes=3 / 60, scope="decoder")
    outcome = run.to_end()
    assert outcome.ending == "complete" and outcome.steps >= 1
    # What had begun by then may end: a step, and the validations around it.
    ends = [0.0, *(report.seconds for report in run.reports)]
    longest = max(later - earlier for earlier, later in pairwise(ends))
    assert 3 <= outcome.seconds < 3.5 + 4 * longest


def test_only_what_should_changes(examples: TrainingSet, tmp_path: Path) -> None:
    run = Run(examples, tmp_path, steps=3, method="lora", scope="encoder_decoder")
    before = run.weights()
    run.to_end()
    trained = {name for name, each in run.segmenter.named_parameters() if each.requires_grad}
    changed = set(differing(before, run.weights()))
    assert changed <= trained
    assert any("image_encoder" in name for name in changed)
    assert any(name.endswith("mask_decoder.tokens") for name in changed)
    assert any("output_mlps.2" in name for name in changed)
