"""Fine-tuning: what is held out, when it ends, and what a preset comes to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.slices.intensity import IntensityWindow
from SAMFineTuneLib.training import schedule, validation
from SAMFineTuneLib.training.fine_tuning import VALIDATIONS
from SAMFineTuneLib.training.plan import FinetunePlan, settle
from SAMFineTuneLib.training.schedule import Schedule
from SAMFineTuneLib.training.validation_split import ValidationSplit, split
from Testing.support.job_records import choices_of
from Testing.support.training_slices import WINDOW, a_slice, starter, training_set

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_slice_is_held_out_in_all_frames_of_its_volume() -> None:
    frames = range(3)
    slices = [a_slice({1}, 0, number) for _ in frames for number in range(8)]
    slices += [a_slice(set(), 0, number) for _ in frames for number in (8, 9)]
    for seed in range(5):
        held_out = split(slices, seed)
        (number,) = {slices[each].number for each in held_out.validation}
        assert held_out.by == "slice" and len(held_out.validation) == 3 and number < 8
        assert number not in {slices[each].number for each in held_out.training}
    assert split([a_slice({1}, 0, 4) for _ in frames], seed=0).by == "none"


def test_frames_with_windows_of_their_own_are_not_measured_in_one_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    brighter = WINDOW.model_copy(update={"mean": 0.7})
    frames = [a_slice({1}, 0, number) for number in (1, 2, 3)]
    frames += [replace(each, window=brighter) for each in frames[:2]]
    windows: list[tuple[float, int]] = []

    def embedded(network: Any, images: list[Any], window: IntensityWindow, *more: Any) -> None:
        windows.append((window.mean, len(images)))

    def probabilities(*arguments: Any) -> torch.Tensor:
        return torch.zeros(windows[-1][1], 3, 8, 8)

    monkeypatch.setattr(validation, "embed", embedded)
    monkeypatch.setattr(validation, "probabilities_from", probabilities)
    segmenter = starter(a_plan(method="vanilla"))
    assert segmenter.network.image_encoder.frozen_prefix() == 0
    validation.Validation(segmenter, frames, 4, tmp_path).measure()
    assert windows == [(0.5, 3), (0.7, 2)]


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


@pytest.mark.parametrize(("volumes", "labelled", "steps"), [(1, 5, 1280), (5, 5, 640)])
def test_thorough_makes_twice_the_steps_of_laptop(volumes: int, labelled: int, steps: int) -> None:
    slices = [a_slice({1}, number % volumes, number) for number in range(labelled)]
    examples = training_set(slices)
    plan = settle(choices_of(preset="thorough"), examples, False, unlabelled=9)
    laptop = settle(choices_of(), examples, False, unlabelled=9)
    assert (plan.steps, plan.minutes, plan.prompt_steps) == (steps, 15.0, 480)
    effort = {"steps": laptop.steps, "minutes": laptop.minutes, "prompt_steps": 240}
    assert replace(plan, **effort) == laptop, "all else is as for laptop"


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
    ("side", "expected"),
    [
        *((35, 128), (64, 128), (65, 192), (97, 256), (256, 256)),
        *((257, 320), (300, 320), (512, 512), (900, 512)),
    ],
)
def test_the_input_shows_every_pixel_within_bounds(side: int, expected: int) -> None:
    examples = training_set([a_slice({1, 2}, side=side)])
    assert settle(choices_of(), examples, False).input_size == expected


@pytest.mark.parametrize(("side", "expected"), [(35, 128), (129, 192), (300, 256)])
def test_a_slow_network_has_small_inputs_for_small_slices(side: int, expected: int) -> None:
    examples = training_set([a_slice({1, 2}, side=side)])
    chosen = choices_of(backbone="lite_medsam")
    assert settle(chosen, examples, True).input_size == expected
