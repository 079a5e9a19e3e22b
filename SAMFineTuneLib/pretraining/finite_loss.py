"""A training whose loss is not a number any more is ended."""

from __future__ import annotations

import math

from SAMFineTuneLib.errors import InputError


def require_finite(loss: float, step: int) -> None:
    """Checks the loss of a step.

    Args:
        loss: of the step.
        step: number of steps done before it.

    Raises:
        InputError: it is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise InputError(
            f"the loss is not a number any more at step {step + 1}",
            "Lower the learning rate",
            code="diverged",
        )
