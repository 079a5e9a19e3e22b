"""The runs of a fine-tune that another one goes on from, as the card of their model tells them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# No fine-tune makes more; a card is a file that anybody may have changed.
_MOST = 10**9
# Of a longer chain the card keeps the latest runs.
_MOST_RUNS = 100
# What the card says of each earlier run.
_KEPT = ("steps", "planned_steps", "seconds", "batch", "learning_rate", "seed", "ending")


@dataclass(frozen=True)
class EarlierRuns:
    """What is known of the runs so far.

    Attributes:
        steps: optimiser steps that they made, together.
        left: planned steps that the last one did not make; 0 where that is not known, and where it
            ended because it no longer improved.
        prompt_left: likewise of the tuning for prompts.
        minutes: estimate of the time for the steps that were offered after the last one; None
            without such an offer.
        split_seed: seed by which the held-out slices were chosen; None where it is not known.
        runs: the record of each, the first one first.
    """

    steps: int
    left: int
    prompt_left: int
    minutes: float | None
    split_seed: int | None
    runs: tuple[dict[str, Any], ...]

    @classmethod
    def of_card(
        cls, training: Mapping[str, Any], prompts: Mapping[str, Any] | None = None
    ) -> EarlierRuns:
        """What a card tells; values that are missing or impossible count as not known.

        Args:
            training: of the card.
            prompts: `training` of the weights for prompts; None if there are none.
        """
        offered = training.get("more_time")
        listed = training.get("earlier_runs")
        known = listed if isinstance(listed, list) else []
        runs = [each for each in known if isinstance(each, dict)]
        last = {name: training[name] for name in _KEPT if name in training}
        return cls(
            steps=_count(training.get("earlier_steps")) + _count(training.get("steps")),
            left=_left(training),
            prompt_left=_left(prompts or {}),
            minutes=_minutes(offered.get("minutes")) if isinstance(offered, dict) else None,
            split_seed=_seed(training.get("split_seed", training.get("seed"))),
            runs=(*runs, last)[-_MOST_RUNS:],
        )

    def as_fields(self) -> dict[str, Any]:
        """What the card of the next model says of them, under `training`."""
        return {
            "earlier_steps": self.steps,
            "earlier_runs": list(self.runs),
            "split_seed": self.split_seed,
        }


def _left(training: Mapping[str, Any]) -> int:
    if training.get("ending") == "early stop":
        return 0
    return max(0, _count(training.get("planned_steps")) - _count(training.get("steps")))


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value <= _MOST else 0


def _seed(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**32 else None


def _minutes(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and 0 < value <= _MOST else None
