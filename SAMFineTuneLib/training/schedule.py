"""The learning rate over a fine-tune, and how far it has come."""

from __future__ import annotations

import math
import time

from SAMFineTuneLib.training.plan import FinetunePlan

# Share of the time that passes before it is judged whether the steps will fit into it. Sooner, a
# slow first step or another program's moment would change the schedule, and so the model.
_UNJUDGED = 0.2


class Schedule:
    """Warm-up, then a half cosine down to zero, over steps or time, whichever runs out first.

    As long as the time suffices for all steps it has no influence, so that the same seed gives
    the same model.

    Args:
        plan: steps, minutes, learning rate, warm-up.
        step: steps already taken.
        elapsed_s: seconds already spent.
    """

    def __init__(self, plan: FinetunePlan, step: int = 0, elapsed_s: float = 0.0) -> None:
        self._plan = plan
        self.step = step
        self._started = time.monotonic() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds spent, those before a resume included."""
        return time.monotonic() - self._started

    @property
    def expected_steps(self) -> int:
        """Steps in all, as far as can be told now."""
        steps, minutes = self._plan.steps, self._plan.minutes
        if minutes is None:
            assert steps is not None
            return steps
        limit_s = 60 * minutes
        if steps is not None and (not self.step or self.elapsed_s < _UNJUDGED * limit_s):
            return steps
        left_s = max(0.0, limit_s - self.elapsed_s)
        fitting = self.step + int(left_s * self.step / self.elapsed_s)
        return max(1, fitting) if steps is None else min(steps, fitting)

    @property
    def progress(self) -> float:
        """Share of the fine-tune that is done, 0 to 1."""
        if self._plan.steps is None and self._plan.minutes is not None:
            return min(1.0, self.elapsed_s / (60 * self._plan.minutes))
        return min(1.0, self.step / max(1, self.expected_steps))

    @property
    def remaining_s(self) -> float | None:
        """Estimate of the seconds left; None before there is anything to estimate from."""
        progress = self.progress
        return self.elapsed_s * (1 - progress) / progress if progress > 0 else None

    def learning_rate(self) -> float:
        """Rate for the next step."""
        warm_up = min(1.0, (self.step + 1) / max(1, self._plan.warm_up))
        return self._plan.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * self.progress))
