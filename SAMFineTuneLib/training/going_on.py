"""The plan by which a tuned model goes on learning from its own examples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.training.choices import FinetuneChoices
from SAMFineTuneLib.training.earlier_runs import EarlierRuns
from SAMFineTuneLib.training.plan import (
    FinetunePlan,
    fewest_further_steps,
    most_useful_steps,
    steps_of_preset,
    warm_up_of,
)
from SAMFineTuneLib.training.presets import PRESETS

# Share of the preset's learning rate. The rate of the first run had fallen to zero: at the full
# rate much of what it learnt in its last, small steps would be lost again.
GENTLE = 1 / 3
# Time limit for offered steps, as a multiple of the time that they were estimated to take. The
# estimate is that of a machine that may be busier now.
_SPARE_TIME = 1.5


def plan_to_go_on(
    usual: FinetunePlan, choices: FinetuneChoices, examples: TrainingSet, earlier: EarlierRuns
) -> FinetunePlan:
    """The plan of a gentle restart: a short warm-up to a third of the rate, then down to zero.

    Where the user gives neither steps nor minutes, it makes the planned steps that are left, and at
    least a quarter of the preset's. The preset's time limit holds, or a longer one where the steps
    that were offered are estimated to take longer. The seed differs from those of the earlier runs,
    so that other variants of the slices are seen.

    Args:
        usual: of a fine-tune with these choices that starts from a tuned model.
        choices: what the user chose.
        examples: what is learnt from.
        earlier: the runs of the model so far.
    """
    recipe = PRESETS[choices.preset]
    steps, prompt_steps, minutes = usual.steps, usual.prompt_steps, usual.minutes
    if choices.steps is None and choices.minutes is None:
        fewest = fewest_further_steps(recipe, examples, usual.batch)
        share = fewest / steps_of_preset(recipe, examples, usual.batch)
        steps = max(earlier.left, fewest)
        if prompt_steps is not None:
            prompt_steps = max(earlier.prompt_left, math.ceil(share * prompt_steps))
        if minutes is not None and earlier.minutes is not None:
            minutes = max(minutes, _SPARE_TIME * earlier.minutes)
    return replace(
        usual,
        steps=steps,
        prompt_steps=prompt_steps,
        minutes=minutes,
        learning_rate=choices.learning_rate or GENTLE * usual.learning_rate,
        warm_up=warm_up_of(recipe, steps),
        falls=True,
        seed=_seed_of_draws(choices.seed, earlier.steps),
    )


def too_many_steps(
    plan: FinetunePlan, choices: FinetuneChoices, examples: TrainingSet, earlier: EarlierRuns
) -> list[str]:
    """A warning where the steps of all runs are more than the slices are known to be good for."""
    most = most_useful_steps(PRESETS[choices.preset], examples)
    if most is None or plan.steps is None or earlier.steps + plan.steps <= most:
        return []
    labelled = sum(each.is_labelled for each in examples.learnt_slices)
    return [
        f"with the {earlier.steps} made before, {counted(plan.steps, 'step')} are more than the "
        f"{most} that {counted(labelled, 'labelled slice')} of several volumes are good for: the "
        "model may learn these slices by heart and find less in other volumes; label more slices "
        "if you can"
    ]


def _seed_of_draws(seed: int, earlier_steps: int) -> int:
    return int(np.random.SeedSequence([seed, earlier_steps]).generate_state(1)[0])
