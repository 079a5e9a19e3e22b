"""What more time would be good for, of a tuned model's card, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeGuard

from slicer.i18n import tr as _

from SAMFineTunePanel.texts.counted_text import counted

if TYPE_CHECKING:
    from SAMFineTuneLib.models.model_file import ModelCard


def moreTimeText(card: ModelCard) -> str:
    """That its time was too short, or that it was still getting better, and how long more would take; "" for neither.

    A file from elsewhere may hold anything.
    """
    offered, made = card.training.get("more_time"), card.training.get("steps")
    if not isinstance(offered, dict):
        return ""
    minutes, steps = offered.get("minutes"), offered.get("steps")
    if not (_isNumber(minutes) and _isNumber(steps) and _isNumber(made)):
        return ""
    if offered.get("why") == "time limit":
        one, more = (
            _(
                "It had time for {made} of {planned} steps; about 1 more minute would make the rest. "
                "Go on learning to use it."
            ),
            _(
                "It had time for {made} of {planned} steps; about {count} more minutes would make the rest. "
                "Go on learning to use them."
            ),
        )
    else:
        one, more = (
            _(
                "The validation DSC was still rising when it was last measured; about 1 more minute would make "
                "{further} further steps. Go on learning to use it."
            ),
            _(
                "The validation DSC was still rising when it was last measured; about {count} more minutes would make "
                "{further} further steps. Go on learning to use them."
            ),
        )
    return counted(max(1, round(minutes)), one, more, made=made, planned=made + steps, further=steps)


def _isNumber(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)
