"""What is said of a fine-tune that more time would be good for, during it and at its end."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from SAMFineTuneLib.training import schedule
from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome
from SAMFineTuneLib.training.more_time import in_words, more_time
from SAMFineTuneLib.training.plan import FinetunePlan, settle
from SAMFineTuneLib.training.presets import PRESETS
from SAMFineTuneLib.training.schedule import Schedule
from SAMFineTuneLib.training.validation_trend import still_rises
from Testing.support.job_records import choices_of
from Testing.support.training_slices import a_slice, training_set

LAPTOP = PRESETS["laptop"]
ONE_VOLUME = training_set([a_slice({1}, 0, number) for number in range(5)])
FEW_OF_SEVERAL = training_set([a_slice({1}, volume) for volume in range(5)])
# Fifty labelled slices: five whole volumes of ten slices.
WHOLE_VOLUMES = training_set([a_slice({1}, each % 5, each) for each in range(50)])


def history(dsc: Any) -> list[dict[str, float | int | None]]:
    return [
        {"step": 19 * number, "loss": 0.1, "validation_dsc": None if each is None else float(each)}
        for number, each in enumerate(dsc, start=1)
    ]


NOISE = np.random.default_rng(0).normal(0, 0.004, 20)
RISING = history(0.5 + 0.01 * np.arange(20) + NOISE)
LEVEL = history(np.minimum(0.5 + 0.04 * np.arange(20), 0.8) + NOISE)


def plan_of(examples: Any, **choices: Any) -> FinetunePlan:
    return settle(choices_of(**choices), examples, False)


def ended(**changes: Any) -> FinetuneOutcome:
    made = FinetuneOutcome(
        steps=640,
        seconds=128.0,
        loss=0.2,
        validation=None,
        distances=None,
        best_step=None,
        held_out_joined=True,
        ending="complete",
        history=LEVEL,
        cached_variants=1,
    )
    return replace(made, **changes)


def test_a_plan_that_time_cut_short_tells_how_long_the_rest_takes() -> None:
    cut = ended(steps=210, seconds=192.0, ending="time limit")
    more = more_time(plan_of(ONE_VOLUME), LAPTOP, ONE_VOLUME, cut, chooses=False)
    assert more is not None and more.as_fields() == {
        "minutes": 6.6,
        "steps": 430,
        "why": "time limit",
    }
    assert in_words(more, cut) == (
        "it had time for 210 of 640 steps; about 7 more minutes would make the rest. Go on "
        "learning to use them"
    )


def test_the_last_few_steps_are_not_worth_a_word() -> None:
    plan = plan_of(ONE_VOLUME)
    for steps, is_told in ((576, True), (577, False)):
        cut = ended(steps=steps, seconds=192.0, ending="time limit")
        assert (more_time(plan, LAPTOP, ONE_VOLUME, cut, False) is not None) == is_told


@pytest.mark.parametrize("ending", ["early stop", "finished on request"])
def test_nothing_is_offered_after_an_end_on_purpose(ending: str) -> None:
    stopped = ended(steps=100, ending=ending, history=RISING)
    assert more_time(plan_of(WHOLE_VOLUMES), LAPTOP, WHOLE_VOLUMES, stopped, True) is None


def test_a_dsc_that_still_rises_is_a_reason_to_go_on() -> None:
    plan, rising = plan_of(WHOLE_VOLUMES), ended(history=RISING)
    assert plan.steps == 640
    more = more_time(plan, LAPTOP, WHOLE_VOLUMES, rising, chooses=True)
    assert more is not None
    # A quarter of the preset's steps, at 0.2 s each.
    assert (more.steps, more.minutes, more.why) == (160, 0.5, "validation still rises")
    assert "about 1 more minute would make 160 further steps" in in_words(more, rising)
    assert more_time(plan, LAPTOP, WHOLE_VOLUMES, ended(), chooses=True) is None
    assert more_time(plan, LAPTOP, WHOLE_VOLUMES, rising, chooses=False) is None, "too few held out"


def test_nothing_is_offered_where_more_steps_overfit() -> None:
    plan = plan_of(FEW_OF_SEVERAL)
    assert plan.steps == 320
    all_made = ended(steps=320, history=RISING)
    assert more_time(plan, LAPTOP, FEW_OF_SEVERAL, all_made, chooses=True) is None
    # Fifty slices of several volumes are good for 3200 steps, those of earlier runs included.
    rising = ended(history=RISING)
    plan = plan_of(WHOLE_VOLUMES)
    for earlier, is_offered in ((2400, True), (2401, False)):
        more = more_time(plan, LAPTOP, WHOLE_VOLUMES, rising, True, earlier)
        assert (more is not None) == is_offered
    # What time has cut off a plan within this limit does not overfit.
    cut = ended(steps=100, ending="time limit")
    more = more_time(plan_of(FEW_OF_SEVERAL), LAPTOP, FEW_OF_SEVERAL, cut, chooses=False)
    assert more is not None and more.steps == 220


def test_only_a_rise_above_the_noise_is_one() -> None:
    assert still_rises(RISING) and not still_rises(LEVEL)
    steps = np.arange(20)
    steep = 0.5 + 0.004 * steps
    assert still_rises(history(steep + NOISE / 10))
    assert not still_rises(history(steep + 0.02 * (-1) ** steps)), "the same rise in noise"
    assert not still_rises(history(0.5 + 0.0005 * steps)), "too small to be worth minutes"
    assert not still_rises(history(0.9 - 0.01 * steps))
    # A rise that has ended does not count.
    assert not still_rises(history(np.minimum(0.5 + 0.05 * steps, 0.9)))


def test_few_measurements_tell_no_rise() -> None:
    rise = 0.5 + 0.02 * np.arange(15)
    assert still_rises(history(rise)) and not still_rises(history(rise[:14]))
    assert not still_rises([]) and not still_rises(history([None] * 30))


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_schedule_knows_what_it_will_lack_once_steps_are_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=clock.monotonic))
    plan = plan_of(ONE_VOLUME)
    assert (plan.steps, plan.minutes) == (640, 3.2)

    def after(steps: int, seconds: float, changed: FinetunePlan = plan) -> int:
        running = Schedule(changed)
        clock.now += seconds
        running.step = steps
        return running.missing_steps

    assert after(0, 0) == after(30, 30.0) == 0, "too early to judge"
    assert after(50, 50.0) == 640 - 192
    assert after(160, 48.0) == after(151, 48.0) == 0, "time for all but a few"
    assert after(50, 50.0, replace(plan, minutes=None)) == 0
    assert after(50, 50.0, replace(plan, steps=None)) == 0
