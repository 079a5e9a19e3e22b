"""Warnings about a fine-tune that fell short of its plan, for the person who uses its model."""

from __future__ import annotations

from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome

# A warning is given where fewer steps than this share of the planned ones were made.
_MOST_OF_THE_PLAN = 0.5

# Below this validation DSC a network counts as having found nothing. The lowest DSC of a useful
# model was 0.07; it was measured on one held-out slice at the end of a structure.
_NOTHING = 0.05


def shortfalls(planned_steps: int | None, outcome: FinetuneOutcome) -> list[str]:
    """Warnings, one sentence each; none where the fine-tune went as planned.

    Args:
        planned_steps: of the plan; None for as many steps as fit into the time.
        outcome: of the fine-tune.
    """
    return [*few_steps(planned_steps, outcome.steps, outcome.ending), *_nothing_found(outcome)]


def few_steps(planned: int | None, made: int, ending: str) -> list[str]:
    """A warning where less than half of the planned steps fitted into the time limit."""
    stopped_on_purpose = ending in ("early stop", "finished on request")
    if planned is None or stopped_on_purpose or made >= _MOST_OF_THE_PLAN * planned:
        return []
    return [
        f"the time limit left {made} of the {planned} planned steps, so that the model has learnt "
        "less than it could; give it more time, a smaller input size or a smaller backbone, or "
        "leave the processor to it alone"
    ]


def ending_in_words(outcome: FinetuneOutcome) -> str:
    """The ending for the model's card, in which a model that found nothing is not complete."""
    return "nothing found on held-out slices" if _found_nothing(outcome) else outcome.ending


def _found_nothing(outcome: FinetuneOutcome) -> bool:
    mean = None if outcome.validation is None else outcome.validation.mean
    return mean is not None and mean < _NOTHING


def _nothing_found(outcome: FinetuneOutcome) -> list[str]:
    if not _found_nothing(outcome):
        return []
    assert outcome.validation is not None
    dsc = f"validation DSC {outcome.validation.mean:.3f}"
    later = (
        ", before the held-out slices were learnt from as well" if outcome.held_out_joined else ""
    )
    return [
        f"the model finds next to nothing on the slices that were held out ({dsc}, "
        f"measured at step {outcome.best_step}{later}); look at its result before you rely on it, "
        "and label more slices or give it more time"
    ]
