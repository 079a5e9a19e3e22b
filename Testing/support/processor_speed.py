"""How slow this machine's processor is, for limits that are meant for a common one."""

from __future__ import annotations

import time

# Limits are asked of a processor that does the loop below in this many seconds.
LOOP_S = 0.04


def _loop() -> float:
    started = time.perf_counter()
    for number in range(1_000_000):
        number += 1
    return time.perf_counter() - started


def slowness() -> float:
    """How many times as long as that processor this one takes; at least 1."""
    return max(1.0, min(_loop() for _ in range(5)) / LOOP_S)
