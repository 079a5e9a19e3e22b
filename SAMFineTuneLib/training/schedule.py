"""The learning rate and the progress of a fine-tune."""

from __future__ import annotations

import math
import time

from SAMFineTuneLib.training.plan import FinetunePlan

# Share of the time limit that passes before the schedule judges whether all steps fit into it.
# If it judged sooner, a slow first step or a short load by another program would change the
# schedule, and so the model.
_UNJUDGED = 0.2

# Share of the planned steps from which on it is told that there is no time for them: without the
# last few, the learning rate has still fallen to zero, and little is lost.
WORTH_TELLING = 0.1

# Share of the time limit that the warm-up takes where no number of steps is given.
_WARM_UP_TIME = 0.1


class Schedule:
    """Warm-up, then a half cosine down to zero, over the steps or the time limit.

    Where the plan's rate does not fall, it stays as it is after the warm-up.

    As long as the time suffices for all steps, it has no influence, so that the same seed gives
    the same model. Where it does not suffice, or no number of steps was given, the warm-up depends
    on the time: a slow network that makes only sixteen steps must not spend all of them on the
    warm-up.

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
        """Seconds spent, including those before an interruption."""
        return time.monotonic() - self._started

    @property
    def expected_steps(self) -> int:
        """Estimate of the number of steps in all."""
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
    def was_cut_short(self) -> bool:
        """Whether fewer steps were made than planned; holds after the fine-tune has ended."""
        return self._plan.steps is not None and self.step < self._plan.steps

    @property
    def missing_steps(self) -> int:
        """Planned steps for which there will be no time, at the pace so far.

        0 where there is time enough, for all but a few, and as long as the pace is not known.
        """
        planned = self._plan.steps
        missing = 0 if planned is None else planned - self.expected_steps
        return missing if planned is not None and missing >= WORTH_TELLING * planned else 0

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
        """Learning rate of the next step."""
        falling = 0.5 * (1 + math.cos(math.pi * self.progress)) if self._plan.falls else 1.0
        return self._plan.learning_rate * self._warmth() * falling

    def _warmth(self) -> float:
        """Share of the learning rate that the warm-up allows for the next step."""
        by_steps = (self.step + 1) / max(1, self._plan.warm_up)
        return min(1.0, max(by_steps, self._warmth_by_time()))

    def _warmth_by_time(self) -> float:
        if self._plan.minutes is None:
            return 0.0
        passed = self.elapsed_s / (60 * self._plan.minutes)
        if self._plan.steps is None:
            return passed / _WARM_UP_TIME
        return 1.0 if passed >= _UNJUDGED else 0.0
