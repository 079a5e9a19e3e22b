"""How a worker process ended, in words."""

from __future__ import annotations

import signal
from collections.abc import Iterable


def how_it_ended(returned: int) -> str:
    """What an exit code tells; negative, the signal that killed the process."""
    if returned >= 0:
        return f"exit code {returned}"
    try:
        return f"killed by {signal.Signals(-returned).name}"
    except ValueError:
        return f"killed by signal {-returned}"


def with_last_words(message: str, error_lines: Iterable[str]) -> str:
    """The message with the line of standard error that tells most: the last that names an error."""
    lines = [line.strip() for line in error_lines if line.strip()]
    telling = [line for line in lines if "error" in line.lower()]
    last = (telling or lines or [""])[-1]
    return f"{message}; its last words: {last}" if last else message
