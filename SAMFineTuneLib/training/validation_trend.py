"""Whether the validation DSC of a fine-tune still rose when it was last measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# Measurements that the last third must have. With fewer, chance draws a rising line too often.
_FEWEST = 5
# A rise is more than noise from so many of its standard errors on. Six measurements of pure noise
# seem to rise so much once in fifty times.
_STANDARD_ERRORS = 3.0
# A smaller rise of the DSC over a third of the measurements is not worth further minutes.
_SMALLEST = 0.01


def still_rises(history: Sequence[Mapping[str, float | int | None]]) -> bool:
    """Whether the last third of the measurements rises by more than its noise.

    A straight line is fitted through it. Its noise is the scatter of the measurements around it.

    Args:
        history: one entry for each validation, in their order: `step`, and `validation_dsc`, which
            is None where nothing could be measured.
    """
    measured = [
        (float(each["step"]), float(each["validation_dsc"]))
        for each in history
        if each["step"] is not None and each["validation_dsc"] is not None
    ]
    last = measured[len(measured) - len(measured) // 3 :]
    if len(last) < _FEWEST:
        return False
    steps, dsc = np.array(last).T
    steps = steps - steps.mean()
    spread = float((steps**2).sum())
    slope = float((steps * (dsc - dsc.mean())).sum()) / spread
    scatter = dsc - dsc.mean() - slope * steps
    error = float(np.sqrt((scatter**2).sum() / (len(last) - 2) / spread))
    return slope > _STANDARD_ERRORS * error and slope * float(np.ptp(steps)) > _SMALLEST
