"""The plan of a fine-tune that goes on from its own model."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from SAMFineTuneLib.training.earlier_runs import EarlierRuns
from SAMFineTuneLib.training.going_on import plan_to_go_on, too_many_steps
from SAMFineTuneLib.training.plan import FinetunePlan, settle
from SAMFineTuneLib.training.schedule import Schedule
from Testing.support.job_records import choices_of
from Testing.support.training_slices import a_slice, training_set

ONE_VOLUME = training_set([a_slice({1}, 0, number) for number in range(5)])
SEVERAL = training_set([a_slice({1}, volume) for volume in range(5)])
CUT = {"steps": 210, "planned_steps": 640, "seed": 0, "ending": "time limit"}


def further(
    training: dict[str, Any], examples: Any = ONE_VOLUME, prompts: Any = None, **choices: Any
) -> FinetunePlan:
    job = choices_of(**choices)
    return plan_to_go_on(
        settle(job, examples, True), job, examples, EarlierRuns.of_card(training, prompts)
    )


def test_it_makes_the_steps_that_are_left() -> None:
    plan = further(CUT)
    assert plan.steps == 430 and plan.warm_up == 30 and plan.falls
    assert plan.learning_rate == pytest.approx(5e-4 / 3)
    assert further(CUT, learning_rate=2e-4).learning_rate == 2e-4
    assert further(CUT, preset="loramednet", backbone="vit_b", input_size=256).falls


def test_it_makes_at_least_a_quarter_of_the_presets_steps() -> None:
    done = {**CUT, "steps": 640, "ending": "complete"}
    assert further(done).steps == 160 and further(done).warm_up == 16
    assert further(done, SEVERAL).steps == 80
    assert further({}).steps == 160, "an old card tells nothing"
    early = {**CUT, "ending": "early stop"}
    assert further(early).steps == 160, "the planned steps that are left would not improve it"


def test_steps_and_minutes_are_the_users() -> None:
    assert (further(CUT).minutes, further(CUT).steps) == (3.2, 430)
    given = further(CUT, minutes=9.0)
    assert (given.minutes, given.steps) == (9.0, None)
    given = further(CUT, steps=50)
    assert (given.minutes, given.steps, given.warm_up) == (None, 50, 5)


def test_there_is_time_for_what_was_offered() -> None:
    offered = {**CUT, "more_time": {"minutes": 6.0, "steps": 430, "why": "time limit"}}
    assert further(offered).minutes == pytest.approx(9.0)
    short = {**CUT, "more_time": {"minutes": 0.5}}
    assert further(short).minutes == 3.2
    assert further(offered, preset="study", input_size=256).minutes is None


@pytest.mark.parametrize("minutes", [math.nan, math.inf, -1, 0, "6", True, None, [6]])
def test_an_impossible_estimate_is_none(minutes: Any) -> None:
    assert further({**CUT, "more_time": {"minutes": minutes}}).minutes == 3.2
    assert further({**CUT, "more_time": minutes}).minutes == 3.2


def test_prompts_make_what_is_left_of_theirs() -> None:
    assert further(CUT).prompt_steps == 60
    cut = {"steps": 100, "planned_steps": 240, "ending": "time limit"}
    assert further(CUT, prompts=cut).prompt_steps == 140


def test_every_run_draws_other_variants() -> None:
    seeds = {further({**CUT, "steps": steps}).seed for steps in (0, 210, 211, 640)}
    assert len(seeds) == 4 and 0 not in seeds
    assert further(CUT).seed == further(CUT).seed != further(CUT, seed=1).seed
    # As many steps in one run or in two are not the same.
    twice = {**CUT, "steps": 110, "earlier_steps": 100}
    assert further(twice).seed == further(CUT).seed


def test_the_rate_rises_gently_and_falls_to_zero() -> None:
    plan = replace(further(CUT), minutes=None)
    rates = []
    running = Schedule(plan)
    while running.step == 0 or running.progress < 1:
        rates.append(running.learning_rate())
        running.step += 1
    assert len(rates) == 430 and rates[0] < plan.learning_rate / 20
    assert rates[30:] == sorted(rates[30:], reverse=True) and rates[-1] < rates[30] / 1000
    assert max(rates) <= 5e-4 / 3


def test_more_steps_than_few_slices_are_good_for_are_warned_of() -> None:
    job = choices_of()

    def warned(examples: Any, **training: Any) -> list[str]:
        earlier = EarlierRuns.of_card({**CUT, **training})
        plan = plan_to_go_on(settle(job, examples, True), job, examples, earlier)
        return too_many_steps(plan, job, examples, earlier)

    (said,) = warned(SEVERAL, steps=320, planned_steps=320)
    assert "with the 320 made before, 80 steps are more than the 320" in said
    assert "5 labelled slices" in said
    assert warned(SEVERAL, planned_steps=320) == [], "210 and 110 are 320"
    assert warned(ONE_VOLUME, steps=640) == []


def test_what_a_card_tells_of_its_runs() -> None:
    first = {**CUT, "seconds": 190.0, "batch": 4, "learning_rate": 1e-3, "held_out_origin": "a"}
    earlier = EarlierRuns.of_card(first)
    assert (earlier.steps, earlier.left, earlier.split_seed) == (210, 430, 0)
    assert earlier.runs == ({name: first[name] for name in first if name != "held_out_origin"},)
    second = {**CUT, "steps": 30, "planned_steps": 430, "seed": 77, **earlier.as_fields()}
    chain = EarlierRuns.of_card(second)
    assert (chain.steps, chain.left, chain.split_seed) == (240, 400, 0)
    assert [each["seed"] for each in chain.runs] == [0, 77] and chain.runs[0] == earlier.runs[0]


@pytest.mark.parametrize("bad", ["9", -4, 10**12, 1.5, True, None])
def test_impossible_values_of_a_card_count_as_not_known(bad: Any) -> None:
    earlier = EarlierRuns.of_card(
        {"steps": bad, "planned_steps": bad, "seed": bad, "earlier_steps": bad, "earlier_runs": bad}
    )
    assert (earlier.steps, earlier.left, earlier.split_seed) == (0, 0, None)
    assert len(earlier.runs) == 1
