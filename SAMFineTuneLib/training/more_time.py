"""What more time would bring to a fine-tune: the steps that it lacks, and how long they take.

It promises no DSC: how much further steps gain differs between structures, and is not known before.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome
from SAMFineTuneLib.training.plan import FinetunePlan, fewest_further_steps, most_useful_steps
from SAMFineTuneLib.training.presets import Recipe
from SAMFineTuneLib.training.schedule import WORTH_TELLING
from SAMFineTuneLib.training.validation_trend import still_rises

Reason = Literal["time limit", "validation still rises"]
TIME_LIMIT: Reason = "time limit"
STILL_RISES: Reason = "validation still rises"


@dataclass(frozen=True)
class MoreTime:
    """An offer to go on learning.

    Attributes:
        minutes: estimate of the time that the steps take, at the pace of this run.
        steps: how many steps.
        why: why they are worth making: time was too short for the planned steps, or the DSC on the
            held-out slices still rose.
    """

    minutes: float
    steps: int
    why: Reason

    def as_fields(self) -> dict[str, Any]:
        """As the card of a tuned model has it."""
        return asdict(self)


def more_time(
    plan: FinetunePlan,
    recipe: Recipe,
    examples: TrainingSet,
    outcome: FinetuneOutcome,
    chooses: bool,
    earlier_steps: int = 0,
) -> MoreTime | None:
    """What more time would be good for; None where nothing speaks for more steps.

    Args:
        plan: of the fine-tune.
        recipe: of its preset.
        examples: what it learnt from.
        outcome: of the fine-tune.
        chooses: whether enough slices were held out to choose weights by, and so to see a rise.
        earlier_steps: steps of the runs that it went on from.
    """
    if outcome.ending in ("early stop", "finished on request"):
        return None
    missing = 0 if plan.steps is None else plan.steps - outcome.steps
    if plan.steps is not None and missing >= WORTH_TELLING * plan.steps:
        return _offer(missing, outcome, TIME_LIMIT)
    further = fewest_further_steps(recipe, examples, plan.batch)
    most = most_useful_steps(recipe, examples)
    overfits = most is not None and earlier_steps + outcome.steps + further > most
    if chooses and not overfits and still_rises(outcome.history):
        return _offer(further, outcome, STILL_RISES)
    return None


def in_words(more: MoreTime, outcome: FinetuneOutcome) -> str:
    """The offer in one or two sentences, for the log."""
    minutes = about_minutes(more.minutes)
    if more.why == TIME_LIMIT:
        planned = outcome.steps + more.steps
        said = (
            f"it had time for {outcome.steps} of {counted(planned, 'step')}; about {minutes} would "
            "make the rest"
        )
    else:
        said = (
            "the validation DSC was still rising when it was last measured; about "
            f"{minutes} would make {counted(more.steps, 'further step')}"
        )
    return f"{said}. Go on learning to use them"


def about_minutes(minutes: float) -> str:
    """Minutes in whole numbers, at least one."""
    return counted(max(1, round(minutes)), "more minute")


def _offer(steps: int, outcome: FinetuneOutcome, why: Reason) -> MoreTime:
    minutes = steps * outcome.seconds / outcome.steps / 60
    return MoreTime(max(0.1, round(minutes, 1)), steps, why)
