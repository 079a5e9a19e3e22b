"""Fine-tuning: what is held out, what is minimised, when it ends, and that it learns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.adaptation.strategy import adapt
from SAMFineTuneLib.errors import Cancelled, InputError
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.networks.registry import build
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prediction.slice_prediction import class_probabilities
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow, sample_voxels
from SAMFineTuneLib.training import schedule, validation_split
from SAMFineTuneLib.training.example_labels import Label
from SAMFineTuneLib.training.examples import load_examples
from SAMFineTuneLib.training.feature_cache import CachedSample, FeatureCache, worthwhile_variants
from SAMFineTuneLib.training.fine_tuning import (
    VALIDATIONS,
    FinetuneOutcome,
    FineTuning,
    signature_of,
)
from SAMFineTuneLib.training.loop import Watch
from SAMFineTuneLib.training.loss import PartialLabelLoss, merge_unknown
from SAMFineTuneLib.training.plan import FinetunePlan, settle
from SAMFineTuneLib.training.sampling import SliceSampler
from SAMFineTuneLib.training.schedule import Schedule
from SAMFineTuneLib.training.slice_pool import SlicePool
from SAMFineTuneLib.training.training_set import WIDEST, LabelledSlice, TrainingSet
from SAMFineTuneLib.training.training_state import STATE_FILE
from SAMFineTuneLib.training.validation import ValidationDsc
from SAMFineTuneLib.training.validation_split import ValidationSplit, split
from Testing.support.job_records import choices_of, example_of
from Testing.support.synthetic_volumes import dsc, head, keep_slices, write_pair

WINDOW = IntensityWindow(low=0, high=1, mean=0.5, standard_deviation=0.2)


pytestmark = pytest.mark.usefixtures("two_threads")


def a_slice(
    classes: set[int], volume: int = 0, number: int = 0, count: int = 3, side: int = 8
) -> LabelledSlice:
    target = np.zeros((side, side), np.uint8)
    for place, each in enumerate(sorted(classes)):
        target[place] = each
    return LabelledSlice(
        image=np.zeros((side, side), np.float16),
        target=target,
        known=np.ones(count, bool),
        window=WINDOW,
        spacing=(1.0, 1.0),
        volume=volume,
        number=number,
    )


def training_set(slices: list[LabelledSlice]) -> TrainingSet:
    labels = [Label(number) for number in range(1, len(slices[0].known))]
    volumes = len({each.volume for each in slices})
    return TrainingSet(slices, labels, "axial", IntensityNormalisation(kind="percentiles"), volumes)


# What is held out


def test_whole_volumes_are_held_out_where_there_are_several() -> None:
    slices = [a_slice({1, 2}, volume, number) for volume in range(10) for number in range(4)]
    held_out = split(slices, seed=0)
    assert held_out.by == "volume"
    volumes = {slices[each].volume for each in held_out.validation}
    assert len(volumes) == 2 and len(held_out.validation) == 8
    assert not volumes & {slices[each].volume for each in held_out.training}
    assert sorted(held_out.training + held_out.validation) == list(range(40))
    assert split(slices, seed=0) == held_out
    assert any(split(slices, seed=seed) != held_out for seed in range(1, 5))


def test_slices_of_a_single_volume_are_held_out_but_no_empty_ones() -> None:
    slices = [a_slice({1, 2} if 2 <= number < 9 else set(), 0, number) for number in range(12)]
    for seed in range(5):
        held_out = split(slices, seed)
        assert held_out.by == "slice" and len(held_out.validation) == 1
        assert slices[held_out.validation[0]].is_labelled


def test_a_volume_that_alone_has_a_class_stays() -> None:
    slices = [a_slice({1}, 0), a_slice({1, 2}, 1), a_slice({1}, 2)]
    for seed in range(8):
        held_out = split(slices, seed)
        assert held_out.by == "volume" and 1 in held_out.training


def test_when_every_volume_is_needed_slices_are_held_out() -> None:
    slices = [a_slice({1}, 0, 0), a_slice({1}, 0, 1), a_slice({2}, 1, 0), a_slice({2}, 1, 1)]
    for seed in range(8):
        held_out = split(slices, seed)
        assert held_out.by == "slice" and len(held_out.validation) == 1
        left = set().union(*(slices[each].classes for each in held_out.training))
        assert left == {1, 2}


@pytest.mark.parametrize(
    "slices",
    [
        [a_slice({1})],
        [a_slice({1}), a_slice({2}, number=1)],
        [a_slice({1, 2}), a_slice(set(), number=1)],
        [a_slice({1}, 0), a_slice({2}, 1)],
    ],
)
def test_nothing_is_held_out_that_cannot_be_spared(slices: list[LabelledSlice]) -> None:
    held_out = split(slices, seed=0)
    assert held_out == ValidationSplit(list(range(len(slices))), [], "none")


# What is minimised


def separate_loss(logits: Tensor, overlaps: Tensor, target: Tensor) -> float:
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
                errors.append((float(overlaps[sample, each]) - overlap) ** 2)
    return float(cross_entropy + (np.mean(dice) if dice else 0) + 0.1 * np.mean(errors))


@pytest.mark.parametrize("shown", [[0, 1, 2, 3], [0, 1, 3], [0]])
def test_the_loss_is_dice_and_cross_entropy_when_all_is_known(shown: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(3, 4, 16, 16, generator=generator)
    overlaps = torch.rand(3, 4, generator=generator)
    target = torch.tensor(shown)[torch.randint(len(shown), (3, 16, 16), generator=generator)]
    found = PartialLabelLoss()(logits, overlaps, target, torch.ones(3, 4, dtype=torch.bool))
    assert float(found) == pytest.approx(separate_loss(logits, overlaps, target), rel=1e-4)


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
    overlaps = torch.zeros(2, 3)
    background = target == 0
    # Odds between background and class 2 may take any value at no cost.
    joined = logits[:, [0, 2]].logsumexp(1)
    shares = torch.rand(2, 8, 8) * 0.98 + 0.01
    moved = logits.clone()
    moved[:, 0] = joined + shares.log()
    moved[:, 2] = joined + (1 - shares).log()
    cost = 0.1 * 2
    before = PartialLabelLoss()(logits, overlaps, target, known)
    after = PartialLabelLoss()(moved, overlaps, target, known)
    assert abs(float(before - after)) < cost * 1e-3
    # And with no structure known, nothing pulls at class 2 at all.
    logits.requires_grad_()
    nothing = torch.tensor([[True, False, False]] * 2)
    PartialLabelLoss()(logits, overlaps, torch.zeros_like(target), nothing).backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6
    # Where everything is known, class 2 is pushed away from background.
    logits.grad = None
    everything = torch.ones(2, 3, dtype=torch.bool)
    PartialLabelLoss()(logits, overlaps, target, everything).backward()
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


# When it ends


def a_plan(**changes: Any) -> FinetunePlan:
    plan = settle(choices_of(steps=100, input_size=256), training_set([a_slice({1, 2})]), False)
    return replace(plan, **changes)


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_the_rate_warms_up_and_falls_to_nothing(clock: Clock) -> None:
    plan = a_plan(warm_up=10, learning_rate=1.0)
    running = Schedule(plan)
    rates = []
    while running.progress < 1:
        rates.append(running.learning_rate())
        running.step += 1
    assert len(rates) == 100
    assert rates[0] == pytest.approx(0.1) and 0.9 < max(rates) <= 1
    assert rates.index(max(rates)) == 9
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.001 and min(rates) > 0
    assert rates[50] == pytest.approx(0.5, abs=0.01)


def test_time_that_suffices_changes_nothing(clock: Clock) -> None:
    free, limited = Schedule(a_plan()), Schedule(a_plan(minutes=5.0))
    for _ in range(100):
        clock.now += 0.1
        assert limited.learning_rate() == free.learning_rate()
        assert limited.progress == free.progress
        free.step += 1
        limited.step += 1
    assert limited.progress == 1


def test_a_slow_start_changes_nothing(clock: Clock) -> None:
    free, limited = Schedule(a_plan()), Schedule(a_plan(minutes=5.0))
    for number in range(100):
        clock.now += 50.0 if number == 0 else 0.1
        assert limited.learning_rate() == free.learning_rate()
        free.step += 1
        limited.step += 1


def test_minutes_end_it_when_steps_are_too_slow(clock: Clock) -> None:
    running = Schedule(a_plan(minutes=1.0))
    while running.progress < 1:
        clock.now += 2.0
        running.step += 1
    assert 28 <= running.step <= 31
    assert running.elapsed_s <= 64


def test_minutes_alone_fill_the_time(clock: Clock) -> None:
    running = Schedule(a_plan(steps=None, minutes=0.5))
    assert running.remaining_s is None
    while running.progress < 1:
        clock.now += 0.25
        running.step += 1
        assert running.remaining_s == pytest.approx(1030 - clock.now, abs=0.01)
    assert running.step == 120 and running.expected_steps == 120


def test_time_before_an_interruption_counts(clock: Clock) -> None:
    running = Schedule(a_plan(steps=None, minutes=1.0), step=10, elapsed_s=45.0)
    assert running.progress == pytest.approx(0.75)
    clock.now += 15
    assert running.progress == 1


# What a preset comes to


def test_a_network_without_pretrained_weights_trains_whole() -> None:
    examples = training_set([a_slice({1, 2})])
    fresh, pretrained = settle(choices_of(), examples, False), settle(choices_of(), examples, True)
    assert (fresh.method, pretrained.method) == ("vanilla", "adapter")
    assert fresh.scope == pretrained.scope == "encoder_decoder"
    assert settle(choices_of(method="lora", scope="decoder"), examples, False).method == "lora"


def test_presets_differ_and_wishes_come_first() -> None:
    examples = training_set([a_slice({1, 2}, side=300)])
    plans = {name: settle(choices_of(preset=name), examples, True) for name in ("laptop", "study")}
    full = settle(choices_of(preset="full", backbone="vit_b"), examples, True)
    assert plans["laptop"].minutes is not None and plans["study"].minutes is None
    assert plans["laptop"].steps < plans["study"].steps < full.steps  # type: ignore[operator]
    assert full.patience is not None and plans["study"].patience is None
    assert full.patience < VALIDATIONS - 1, "else it could never stop early"
    assert full.input_size == 1024
    wished = settle(
        choices_of(steps=7, batch=3, learning_rate=0.5, input_size=448, seed=9, rank=8),
        examples,
        True,
    )
    assert (wished.steps, wished.minutes, wished.batch) == (7, None, 3)
    assert (wished.learning_rate, wished.input_size, wished.seed) == (0.5, 448, 9)
    assert wished.rank == 8
    assert wished.warm_up == 1 < plans["laptop"].warm_up
    timed = settle(choices_of(minutes=2.0), examples, True)
    assert (timed.steps, timed.prompt_steps, timed.minutes) == (None, None, 2.0)


@pytest.mark.parametrize(
    ("volumes", "labelled", "steps"), [(1, 5, 640), (5, 5, 320), (5, 9, 576), (5, 40, 640)]
)
def test_few_slices_of_several_volumes_are_learnt_in_fewer_steps_and_prompts_in_as_many(
    volumes: int, labelled: int, steps: int
) -> None:
    slices = [a_slice({1}, number % volumes, number) for number in range(labelled)]
    examples = training_set([*slices, a_slice(set(), 0, 99)])
    plan = settle(choices_of(), examples, False)
    assert (plan.steps, plan.prompt_steps) == (steps, 240)
    wished = settle(choices_of(steps=100), examples, False)
    assert (wished.steps, wished.prompt_steps) == (100, 38)
    study = settle(choices_of(preset="study"), examples, False)
    assert (study.steps, study.prompt_steps) == (2500, 938)


@pytest.mark.parametrize(
    ("side", "expected"), [(35, 256), (256, 256), (257, 320), (300, 320), (512, 512), (900, 512)]
)
def test_the_input_shows_every_pixel_within_bounds(side: int, expected: int) -> None:
    examples = training_set([a_slice({1, 2}, side=side)])
    assert settle(choices_of(), examples, False).input_size == expected


# What is read


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    volume, labelmap = head()
    return write_pair(tmp_path, volume, keep_slices(labelmap, [2, 4, 6, 8]), "a")


def test_examples_are_the_labelled_and_the_empty_slices(files: tuple[Path, Path]) -> None:
    examples = load_examples([example_of(*files)])
    assert [label.value for label in examples.labels] == [5, 52]
    assert [label.name for label in examples.labels] == ["bright", "dark"]
    assert examples.labels[0].colour == (1.0, 0.0, 0.0)
    labelled = [each.number for each in examples.slices if each.is_labelled]
    assert labelled == [2, 4, 6, 8] and examples.axis == "axial"
    assert {0, 11} <= {each.number for each in examples.slices if not each.is_labelled}
    assert examples.slices[1].classes == {1, 2}
    assert all(each.image.max() <= 1 and each.image.min() >= 0 for each in examples.slices)
    only = load_examples([example_of(*files, labels=[52])], {52: "mine"})
    assert [(each.value, each.name) for each in only.labels] == [(52, "mine")]
    assert all(each.classes <= {1} for each in only.slices)


def test_segmentations_of_one_volume_are_one_volume(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    second = write_pair(tmp_path, *head(seed=1), "b")
    examples = load_examples([example_of(*each) for each in (files, second, files)])
    volumes = [each.volume for each in examples.slices]
    assert examples.volumes == 2 and volumes == sorted(volumes)
    held_out = split(examples.slices, seed=0)
    training, validation = (
        {volumes[position] for position in part}
        for part in (held_out.training, held_out.validation)
    )
    assert held_out.by == "volume" and not training & validation


def test_a_label_of_another_volume_is_unknown(files: tuple[Path, Path], tmp_path: Path) -> None:
    volume, labelmap = head(values=(5, 7), seed=1)
    labelmap = replace(labelmap, names={5: "bright", 7: "another"})
    second = write_pair(tmp_path, volume, labelmap, "b")
    examples = load_examples([example_of(*files), example_of(*second, labels=[7])])
    assert [label.value for label in examples.labels] == [5, 7, 52]
    of_second = [each for each in examples.slices if each.volume == 1]
    for each in of_second:
        assert each.known.tolist() == [True, False, True, False]
        assert each.classes <= {2}
    of_first = [each for each in examples.slices if each.volume == 0]
    assert of_first and not any(each.known[2] for each in of_first)


def test_volumes_cut_along_different_axes(files: tuple[Path, Path], tmp_path: Path) -> None:
    volume, labelmap = head(seed=1)
    second = write_pair(tmp_path, volume, keep_slices(labelmap, [20, 24, 30], axis=1), "b")
    mixed = [example_of(*files), example_of(*second, axis="coronal")]
    assert load_examples(mixed).axis == WIDEST
    assert load_examples(mixed[1:]).axis == "coronal"


def test_what_may_surprise_is_told(files: tuple[Path, Path]) -> None:
    warnings = load_examples([example_of(*files, empty="none")]).warnings
    assert len(warnings) == 1 and "empty" in warnings[0]
    warnings = load_examples([example_of(*files, labelled=[0, 6])]).warnings
    assert warnings == []


def test_listed_slices_without_a_label_are_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="none of the slices"):
        load_examples([example_of(*files, labelled=[0, 1])])


def test_reading_stops_when_it_is_cancelled(files: tuple[Path, Path]) -> None:
    def cancel() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        load_examples([example_of(*files)], check=cancel)


# What is drawn


def test_every_class_is_drawn_about_equally_often() -> None:
    slices = [a_slice({1}, number=number) for number in range(9)] + [a_slice({2}, number=9)]
    slices += [a_slice(set(), number=number) for number in range(10, 14)]
    pool = SlicePool(slices, list(range(14)))
    drawn = [each for step in range(600) for each in pool.draw(2, np.random.default_rng(step))]
    labelled = [each for each in drawn if each < 10]
    share = sum(each == 9 for each in labelled) / len(labelled)
    assert 0.35 < share < 0.65
    assert 0.05 < 1 - len(labelled) / len(drawn) < 0.3
    assert set(drawn) == set(range(14))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_batch_has_its_size_and_a_labelled_slice(size: int) -> None:
    slices = [a_slice({1, 2}), a_slice(set(), number=1), a_slice(set(), number=2)]
    pool = SlicePool(slices, [0, 1, 2])
    for step in range(50):
        drawn = pool.draw(size, np.random.default_rng(step))
        assert len(drawn) == size and 0 in drawn


def starter(plan: FinetunePlan, structures: int = 2) -> AutomaticSegmenter:
    torch.manual_seed(plan.seed)
    segmenter = AutomaticSegmenter(build("starter", plan.input_size), structures)
    adapt(segmenter.network, plan.method, plan.scope, plan.rank)
    return segmenter


def test_cached_features_are_those_computed(files: tuple[Path, Path], tmp_path: Path) -> None:
    examples = load_examples([example_of(*files)])
    plan = settle(choices_of(steps=2, method="adapter", scope="decoder"), examples, True)
    segmenter = starter(plan)
    encoder = segmenter.network.image_encoder
    stages = len(encoder.stages())
    samples = 8 * len(examples.slices)
    cached = SliceSampler(segmenter, examples.slices, 0, samples, tmp_path / "features")
    assert cached.cached_variants == 4 and cached.start_stage == stages == encoder.frozen_prefix()
    pool = SlicePool(examples.slices, range(len(examples.slices)))
    computed = []
    original = encoder.run

    def counting(state: FeatureState, start: int, stop: int) -> FeatureState:
        computed.append(len(state.x))
        return original(state, start, stop)

    encoder.run = counting  # type: ignore[method-assign]
    first = cached.batch(pool, 3, 0)
    assert 0 < sum(computed) <= 3
    computed.clear()
    again = cached.batch(pool, 3, 0)
    assert not computed, "what is in the cache is not computed again"
    assert torch.equal(first.state.x, again.state.x) and torch.equal(first.target, again.target)
    # The same augmented slice, computed without a cache.
    encoder.run = original  # type: ignore[method-assign]
    plain = SliceSampler(segmenter, examples.slices, 0, samples, None)
    assert plain.cached_variants == 0 and plain.start_stage == 0
    chosen = pool.draw(3, np.random.default_rng([0, 2, 0]))
    for place, position in enumerate(chosen):
        variants = [
            plain._compute(position, plain._draw_seed(position, variant))
            for variant in range(cached.cached_variants)
        ]
        same = [each for each in variants if torch.equal(each.target, first.target[place])]
        with torch.no_grad():
            states = [encoder.run(each.state, 0, stages) for each in same]
        nearest = min((state.x - first.state.x[place : place + 1]).abs().max() for state in states)
        # Kept in half precision.
        assert nearest < 4e-3 * first.state.x[place].abs().max()


def test_the_cache_keeps_samples_apart(tmp_path: Path) -> None:
    def sample(value: float) -> CachedSample:
        state = FeatureState(torch.full((1, 4, 3, 3), value), (torch.full((1, 2, 6, 6), -value),))
        return CachedSample(state, torch.full((6, 6), int(value), dtype=torch.int32))

    cache = FeatureCache(tmp_path / "cache", sample(0), slices=3, variants=2)
    assert (1, 1) not in cache
    for key, value in (((1, 1), 7.0), ((2, 0), 9.0)):
        cache.put(key, sample(value))
    found = cache.get((1, 1))
    assert (1, 1) in cache and (0, 0) not in cache
    assert (found.state.x == 7).all() and found.state.x.shape == (1, 4, 3, 3)
    assert (found.state.skips[0] == -7).all() and (found.target == 7).all()
    assert worthwhile_variants(sample(0), slices=10, samples=10**6, free_bytes=2**40) == 32
    assert worthwhile_variants(sample(0), slices=10, samples=40, free_bytes=2**40) == 0
    assert worthwhile_variants(sample(0), slices=10, samples=10**6, free_bytes=10_000) == 0


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
        choices = choices_of(steps=6, batch=2, input_size=256)
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


@pytest.mark.parametrize(("enough", "learnt_before"), [(1, 12), (99, 6)])
def test_held_out_slices_join_sooner_where_they_are_too_few_to_choose_by(
    enough: int,
    learnt_before: int,
    examples: TrainingSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation_split, "_ENOUGH_TO_CHOOSE", enough)
    run = Run(examples, tmp_path, steps=20)
    outcome = run.to_end()
    phases = [report.phase for report in run.reports]
    assert phases == learnt_before * ["fine-tune"] + (20 - learnt_before) * ["final pass"]
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
    torch.set_num_threads(2)
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
