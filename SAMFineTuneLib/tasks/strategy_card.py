"""The strategy of a plan as a card names it, and the plan that follows a card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from SAMFineTuneLib.models.model_file import Strategy
from SAMFineTuneLib.training.plan import FinetunePlan


def strategy_of(plan: FinetunePlan) -> Strategy:
    """How a fine-tune of this plan adapts its network, for a card."""
    return Strategy(method=plan.method, scope=plan.scope, rank=plan.rank, **plan.places.as_fields())


def with_strategy(plan: FinetunePlan, strategy: Strategy) -> FinetunePlan:
    """The plan with the adaptation that a card names."""
    # What a card names has been checked when it was read.
    known: Any = {"method": strategy.method, "scope": strategy.scope}
    return replace(plan, rank=strategy.rank, places=strategy.places, **known)
