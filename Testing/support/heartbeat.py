"""Whether Slicer stays alive: how long its event loop is held up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest

# Longer than this, a window feels frozen; in seconds.
LONGEST_HOLD_UP = 0.1
_ATTEMPTS = 3


class Heartbeat:
    """Longest time for which Qt's event loop was kept from a timer of 5 ms."""

    def __init__(self):
        import qt

        self.longest, self._last = 0.0, time.monotonic()
        self._timer = qt.QTimer()
        self._timer.setInterval(5)
        self._timer.connect("timeout()", self._beat)
        self._timer.start()

    def _beat(self):
        now = time.monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now

    def forget(self):
        """Begin again: what was just done is not to be measured."""
        self.longest, self._last = 0.0, time.monotonic()

    def stop(self) -> float:
        self._timer.stop()
        return self.longest


def require_no_hold_up(measure: Callable[[], Mapping[str, float]]) -> None:
    """Fails where Slicer is held up too long in each of three attempts.

    Another program may have had the processors or the disk in one of them; what holds Slicer up
    itself does so every time.

    Args:
        measure: makes one attempt, and gives the longest hold-ups by what was done, in seconds.
    """
    attempts = []
    for _attempt in range(_ATTEMPTS):
        longest = measure()
        attempts.append(", ".join(f"{what} {each * 1000:.0f} ms" for what, each in longest.items()))
        print(f"longest hold-up: {attempts[-1]}")
        if max(longest.values()) < LONGEST_HOLD_UP:
            return
    pytest.fail(f"Slicer was held up: {'; '.join(attempts)}")
