"""A fine-tune that time cuts short: its warm-up, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.training import fine_tuning, schedule
from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.schedule import Schedule
from SAMFineTuneLib.training.shortfall import ending_in_words, few_steps, shortfalls
from SAMFineTuneLib.training.validation import ValidationDsc
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import head, keep_slices, write_pair

pytestmark = pytest.mark.usefixtures("one_thread")

LAPTOP = FinetunePlan(
    backbone="vit_b",
    method="adapter",
    scope="encoder_decoder",
    rank=4,
    input_size=512,
    steps=320,
    prompt_steps=120,
    minutes=3.2,
    batch=4,
    learning_rate=1.0,
    warm_up=30,
    weight_decay=0.1,
    patience=None,
    seed=0,
    pretrained=True,
)


class Clock:
    now = 500.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def rates(plan: FinetunePlan, seconds_a_step: float, clock: Clock) -> list[float]:
    running = Schedule(plan)
    found = []
    while running.step == 0 or running.progress < 1:
        found.append(running.learning_rate())
        clock.now += seconds_a_step
        running.step += 1
    return found


def test_sixteen_steps_are_not_all_spent_warming_up(clock: Clock) -> None:
    found = rates(LAPTOP, 12.0, clock)
    assert 16 <= len(found) <= 17
    # A fifth of the time is waited for, since a slow first step does not make a slow fine-tune.
    assert found[:4] == pytest.approx([1 / 30, 2 / 30, 3 / 30, 4 / 30], rel=0.01)
    warming_up_all_along = [
        (step + 1) / 30 * 0.5 * (1 + math.cos(math.pi * step / 16)) for step in range(16)
    ]
    assert max(found) > 0.85 and sum(found) > 2 * sum(warming_up_all_along)
    assert found[4:] == sorted(found[4:], reverse=True)


def test_time_alone_warms_up_in_a_tenth_of_it(clock: Clock) -> None:
    slow = rates(replace(LAPTOP, steps=None, minutes=3.0), 12.0, clock)
    assert len(slow) == 15 and slow[0] == pytest.approx(1 / 30)
    assert slow[1] == pytest.approx(12 / 18, rel=0.05) and slow[2] > 0.95
    quick = rates(replace(LAPTOP, steps=None, minutes=3.0), 0.1, clock)
    assert quick[:30] == sorted(quick[:30]) and quick[29] > 0.99
    assert quick[10] == pytest.approx(11 / 30, rel=0.01)


def test_steps_that_fit_keep_the_warm_up_of_the_plan(clock: Clock) -> None:
    free = rates(replace(LAPTOP, minutes=None), 0.5, clock)
    assert rates(LAPTOP, 0.5, clock) == free


def outcome(**changes: object) -> FinetuneOutcome:
    made = FinetuneOutcome(
        steps=320,
        seconds=100.0,
        loss=0.2,
        validation=ValidationDsc({1: 0.8}),
        distances=None,
        best_step=96,
        held_out_joined=True,
        ending="complete",
        history=[],
        cached_variants=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_fine_tune_as_planned_says_nothing() -> None:
    assert shortfalls(320, outcome()) == [] and ending_in_words(outcome()) == "complete"
    assert shortfalls(None, outcome(steps=3)) == []
    assert shortfalls(320, outcome(validation=None, best_step=None)) == []


def test_a_plan_cut_by_more_than_half_is_said() -> None:
    (said,) = shortfalls(320, outcome(steps=159, ending="time limit"))
    assert "159 of the 320 planned steps" in said
    assert shortfalls(320, outcome(steps=160, ending="time limit")) == []


@pytest.mark.parametrize("ending", ["early stop", "finished on request"])
def test_what_was_stopped_on_purpose_was_not_cut(ending: str) -> None:
    assert few_steps(320, 10, ending) == []


def test_a_model_that_finds_nothing_is_not_called_complete() -> None:
    nothing = outcome(validation=ValidationDsc({1: 0.0, 2: 0.06}))
    assert ending_in_words(nothing) == "nothing found on held-out slices"
    (said,) = shortfalls(320, nothing)
    assert "0.030" in said and "step 96" in said and "as well" in said
    little = outcome(validation=ValidationDsc({1: 0.07}))
    assert shortfalls(320, little) == [] and ending_in_words(little) == "complete"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


def test_the_command_its_result_and_its_card_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    # A plan of preset laptop for which there is time for a few steps only.
    from SAMFineTuneLib.training import plan, presets

    short = replace(presets.PRESETS["laptop"], minutes=2 / 60)
    monkeypatch.setitem(plan.PRESETS, "laptop", short)
    monkeypatch.setattr(fine_tuning, "VALIDATIONS", 1)
    volume, labelmap = head()
    files = write_pair(tmp_path, volume, keep_slices(labelmap, [2, 4, 5, 6, 8]), "head")
    output = tmp_path / "model.safetensors"
    ended = shell(
        "finetune", "--volume", files[0], "--segmentation", files[1], "--output", output,
        "--input-size", "256",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    result = ended.result
    made = result["training"]["steps"]
    assert made < 320 and f"left {made} of the 640 planned steps" in ended.err
    assert result["warnings"] and result["training"]["planned_steps"] == 640
    assert result["training"]["ending"] in ("time limit", "nothing found on held-out slices")
    assert read_card(output).training == result["training"]
    # It is seen before the end, and going on is offered, for as many steps as are left.
    assert "at this pace there is time for about" in ended.err
    more = result["training"]["more_time"]
    assert more["why"] == "time limit" and more["steps"] == 640 - made and more["minutes"] > 0
    assert f"it had time for {made} of 640 steps; about" in ended.err
