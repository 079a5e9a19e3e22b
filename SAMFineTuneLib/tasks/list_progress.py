"""How far the work on a list is, row by row."""

from __future__ import annotations

import time
from collections.abc import Callable

from SAMFineTuneLib.worker.events import EventWriter

_EVERY_S = 0.5


def rows_progress(events: EventWriter, phase: str) -> Callable[[int, int], None]:
    """A function that reports how many of all rows are done, twice a second at most."""
    began = time.monotonic()
    last = float("-inf")

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= _EVERY_S:
            last = now
            left = (now - began) * (total - done) / done if done else None
            events.progress(step=done, steps=total, phase=phase, eta_s=left)

    return report
