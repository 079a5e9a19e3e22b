"""The plan of the tuning for prompts, derived from that of the automatic fine-tune."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from SAMFineTuneLib.adaptation.places import USUAL_PLACES
from SAMFineTuneLib.adaptation.strategy import Method
from SAMFineTuneLib.networks.spec import find
from SAMFineTuneLib.training.plan import FinetunePlan

# Time limit as a share of the automatic fine-tune's: where the time limits the work, and where the
# number of steps does and the time only guards slower machines. On two processor cores the steps of
# the preset laptop take 2 minutes.
_TIME, _GUARDING_TIME = 0.5, 0.8
# Learning rate of the starter network, whose weights for prompts are all pretrained and all train.
_WHOLE_RATE = 5e-4


def plan_for_prompts(
    plan: FinetunePlan,
    pretrained: bool,
    chosen_rate: float | None,
    chosen_method: Method | Literal["auto"] = "auto",
    share: float = 1.0,
) -> FinetunePlan:
    """The plan of the second fine-tune.

    Args:
        plan: of the first one.
        pretrained: whether the network has learnt to answer prompts before.
        chosen_rate: the learning rate that the user chose; None for the default.
        chosen_method: the method that the user chose. Without one, all weights of the starter
            network train.
        share: of the default learning rate that is not the plan's own; a plan that goes on gently
            has a smaller one already.
    """
    steps = plan.prompt_steps
    time = _TIME if steps is None else _GUARDING_TIME
    all_weights = find(plan.backbone).trains_whole_for_prompts
    whole = all_weights and chosen_method == "auto"
    rate = share * _WHOLE_RATE if all_weights and pretrained else plan.learning_rate
    return replace(
        plan,
        method="vanilla" if whole else plan.method,
        scope="encoder_decoder" if whole else plan.scope,
        steps=steps,
        minutes=None if plan.minutes is None else time * plan.minutes,
        learning_rate=chosen_rate or rate,
        warm_up=plan.warm_up if steps is None else min(plan.warm_up, max(1, steps // 10)),
        patience=None,
        pretrained=pretrained,
        places=USUAL_PLACES if whole else plan.places,
    )
