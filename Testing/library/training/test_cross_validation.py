"""Fine-tunes of few slices, measured by shorter ones without some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from SAMFineTuneLib.errors import Cancelled
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.tasks.finetune import is_cross_validated
from SAMFineTuneLib.training import feature_cache
from SAMFineTuneLib.training.cross_validation import (
    CrossValidated,
    CrossValidation,
    Predictions,
)
from SAMFineTuneLib.training.fine_tuning import FineTuning, signature_of
from SAMFineTuneLib.training.folds import Folds
from SAMFineTuneLib.training.loop import ProgressReport, Watch
from SAMFineTuneLib.training.plan import FinetunePlan, settle
from SAMFineTuneLib.training.sampling import SliceSampler
from SAMFineTuneLib.training.validation_split import split
from Testing.support.in_process import Shell, shell_of
from Testing.support.job_records import choices_of, example_of
from Testing.support.synthetic_volumes import head, keep_slices, write_pair
from Testing.support.training_slices import a_slice, starter, training_set

pytestmark = pytest.mark.usefixtures("one_thread", "small_inputs")


def group(true: int, found: int, both: int, classes: int = 2) -> Predictions:
    """One slice with so many true pixels, so many found ones and so many that are both."""
    shown = a_slice(set(), count=classes)
    shown.target.flat[:true] = 1
    predicted = np.zeros_like(shown.target)
    predicted.flat[true - both : true - both + found] = 1
    return [(shown, predicted)]


def crossed(*groups: Predictions) -> CrossValidated:
    return CrossValidated(Folds("slice", [], len(groups)), 24, groups, 2)


def test_the_dsc_is_that_of_all_slices_together() -> None:
    """A small slice at the end of a structure counts by its pixels."""
    found = crossed(group(20, 20, 20), group(20, 20, 16), group(2, 2, 0))
    assert found.by_group == [1.0, 0.8, 0.0]
    assert found.dsc.mean == pytest.approx(2 * 36 / 84)
    assert found.slices == 3


def test_the_interval_is_the_jackknife_s() -> None:
    found = crossed(group(20, 20, 20), group(20, 20, 16), group(20, 20, 12))
    without = np.array([28 / 40, 32 / 40, 36 / 40])
    error = (2 / 3 * ((without - without.mean()) ** 2).sum()) ** 0.5
    # 4.303 is the quantile of two degrees of freedom.
    assert found.interval == pytest.approx(
        (0.8 - 4.303 * error, min(1, 0.8 + 4.303 * error)), abs=1e-3
    )


def test_an_interval_stays_between_0_and_1_and_needs_two_groups() -> None:
    assert crossed(group(20, 20, 2), group(20, 20, 18)).interval == (0.0, 1.0)
    assert crossed(group(20, 20, 18)).interval is None
    assert crossed(group(20, 20, 18), group(20, 20, 18)).interval == pytest.approx((0.9, 0.9))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    volume, labelmap = head()
    pair = write_pair(
        tmp_path_factory.mktemp("examples"), volume, keep_slices(labelmap, [3, 5, 7]), "a"
    )
    return load_examples([example_of(*pair)])


class Measured:
    """A fine-tune of the synthetic head, and its cross-validation."""

    def __init__(
        self,
        examples: TrainingSet,
        folder: Path,
        check: Callable[[], None] = lambda: None,
        finish: Callable[[], bool] = lambda: False,
    ) -> None:
        self.started_from: list[Sequence[LabelledSlice]] = []
        self.reports: list[ProgressReport] = []
        self.folder = folder / "folds"
        plan = settle(choices_of(steps=2, batch=2, scope="decoder"), examples, False)
        self._plan = replace(plan, method="adapter")
        self.segmenter = starter(self._plan)
        self.tuning = FineTuning(
            self.segmenter,
            examples,
            split(examples.slices, plan.seed),
            self._plan,
            folder,
            signature_of(self._plan, examples, "random"),
            Watch(),
        )
        self.outcome = self.tuning.run(keep_features=True)
        watch = Watch(report=self.reports.append, check=check, finish=finish)
        self.crossing = CrossValidation(
            self.tuning, examples, self._plan, self._adapted, self.folder, watch
        )

    def _adapted(self, slices: Sequence[LabelledSlice]) -> AutomaticSegmenter:
        self.started_from.append(slices)
        return starter(self._plan)


def test_each_slice_is_measured_by_a_network_that_has_not_seen_it(
    examples: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Measured(examples, tmp_path)
    drawn: list[set[int]] = []
    sample = SliceSampler._sample

    def noted(sampler: SliceSampler, position: int, draw: int) -> Any:
        drawn[len(run.started_from) - 1].add(position)
        return sample(sampler, position, draw)

    monkeypatch.setattr(SliceSampler, "_sample", noted)
    drawn += [set(), set(), set()]
    before = {name: each.clone() for name, each in run.segmenter.state_dict().items()}
    chance = torch.random.get_rng_state()
    found = run.crossing.run()
    assert found is not None and found.folds.by == "slice"
    assert len(found.measured) == found.folds.measured == found.slices == 3
    apart = [fold.left_out[0][0] for fold in found.folds.folds]
    assert sorted(apart) == [
        number for number, each in enumerate(examples.slices) if each.is_labelled
    ]
    for started, seen, left_out in zip(run.started_from, drawn, apart, strict=True):
        assert not any(each is examples.slices[left_out] for each in started)
        assert seen and left_out not in seen
    # The fine-tune itself is left as it was, and so is what is drawn after it.
    after = run.segmenter.state_dict()
    assert all(torch.equal(after[name], each) for name, each in before.items())
    assert torch.equal(torch.random.get_rng_state(), chance)
    assert not run.folder.exists()
    assert [each.step for each in run.reports] == list(range(1, len(run.reports) + 1))
    assert run.reports[-1].step == run.reports[-1].steps
    assert {each.phase for each in run.reports} == {"measure"}


def test_frozen_features_are_computed_once_for_all_fine_tunes(
    examples: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the usual number a cache would not be worthwhile for two steps.
    monkeypatch.setattr(feature_cache, "_FEWEST_VARIANTS", 1)
    run = Measured(examples, tmp_path)
    variants = run.outcome.cached_variants
    assert variants, "the encoder of a fine-tune of the decoder is frozen"
    computed: list[int] = []
    compute = SliceSampler._compute

    def noted(sampler: SliceSampler, position: int, seed: int) -> Any:
        computed.append(seed)
        return compute(sampler, position, seed)

    monkeypatch.setattr(SliceSampler, "_compute", noted)
    assert run.crossing.run() is not None
    assert len(set(computed)) == len(computed) <= variants * len(examples.slices)
    assert not (tmp_path / "features").exists()


def test_who_finishes_early_does_not_wait_for_it(examples: TrainingSet, tmp_path: Path) -> None:
    run = Measured(examples, tmp_path, finish=lambda: len(run.reports) > 1)
    assert run.crossing.run() is None
    assert len(run.reports) == 2 and not run.folder.exists()


def test_it_is_cancelled_between_steps(examples: TrainingSet, tmp_path: Path) -> None:
    def check() -> None:
        if len(run.reports) > 1:
            raise Cancelled

    run = Measured(examples, tmp_path, check=check)
    with pytest.raises(Cancelled):
        run.crossing.run()
    assert len(run.reports) == 2 and not run.folder.exists()


# When a fine-tune is measured like that


def _plan_of(minutes: float | None) -> FinetunePlan:
    plan = settle(choices_of(), training_set([a_slice({1, 2})]), True)
    return replace(plan, minutes=minutes)


@pytest.mark.parametrize(
    ("slices", "minutes", "changes", "expected"),
    [
        (7, 3.2, {}, True),
        (8, 3.2, {}, False),
        (7, None, {}, False),
        (7, 3.2, {"steps": 5}, False),
        (7, 3.2, {"minutes": 3.2}, False),
        (7, 3.2, {"validation": "held_out"}, False),
        (7, 3.2, {"validation": "none"}, False),
        (8, None, {"validation": "folds", "steps": 5}, True),
    ],
)
def test_few_slices_are_cross_validated_where_the_preset_limits_the_time(
    slices: int, minutes: float | None, changes: dict[str, Any], expected: bool
) -> None:
    shown = training_set([a_slice({1, 2}, number=number) for number in range(slices)])
    shown.slices.append(a_slice(set(), number=99))
    job = choices_of(**changes)
    assert is_cross_validated(job, _plan_of(minutes), shown) == expected


# By the real command


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def test_the_card_tells_what_to_expect(shell: Shell, tmp_path: Path) -> None:
    volume, labelmap = head()
    image, labels = write_pair(tmp_path, volume, keep_slices(labelmap, [3, 5, 7]), "a")
    model = tmp_path / "model.safetensors"
    ended = shell(
        *("finetune", "--volume", image, "--segmentation", labels, "--output", model),
        *("--job", tmp_path / "job", "--backbone", "starter", "--scope", "decoder"),
        *("--steps", "2", "--batch", "1", "--validation", "folds", "--input-size", "128"),
    )
    assert ended.code == 0, ended.err
    metrics = read_card(model).metrics
    crossed = metrics["cross_validation"]
    assert crossed["fine_tunes"] == crossed["groups"] == crossed["measured_groups"] == 3
    assert metrics["held_out"] == "slice" and metrics["held_out_slices"] == 3
    assert min(crossed["dsc"]) <= metrics["validation_dsc"] <= max(crossed["dsc"])
    low, high = crossed["dsc_interval"]
    assert 0 <= low <= metrics["validation_dsc"] <= high <= 1
    assert ended.result["metrics"]["cross_validation"]["dsc_interval"] == [low, high]
    assert "each by a shorter fine-tune without it" in ended.err
    assert f"between {low:.2f} and {high:.2f} in other slices" in ended.err
    assert not [*(tmp_path / "job").rglob("fold*"), *(tmp_path / "job").rglob("features*")]


def test_a_model_that_has_seen_the_slices_cannot_be_measured_on_them(
    shell: Shell, tmp_path: Path
) -> None:
    volume, labelmap = head()
    image, labels = write_pair(tmp_path, volume, keep_slices(labelmap, [3, 5]), "a")
    ended = shell(
        *("finetune", "--volume", image, "--segmentation", labels, "--validation", "folds"),
        *("--output", tmp_path / "m.safetensors", "--initial-model", image),
    )
    assert ended.code == 2 and "may have learnt from the slices" in ended.err
