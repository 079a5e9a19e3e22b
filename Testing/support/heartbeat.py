"""Whether Slicer stays alive: how long its event loop is held up."""

from __future__ import annotations

import time

# Longer than this, a window feels frozen; in seconds.
LONGEST_HOLD_UP = 0.1


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
