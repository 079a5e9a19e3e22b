"""Texts about how a worker process ended."""

from __future__ import annotations

import signal
from collections.abc import Iterable


def how_it_ended(returned: int) -> str:
    """A text about an exit code; a negative one is the signal that killed the process."""
    if returned >= 0:
        return f"exit code {returned}"
    try:
        return f"killed by {signal.Signals(-returned).name}"
    except ValueError:
        return f"killed by signal {-returned}"


def with_error_lines(message: str, error_lines: Iterable[str]) -> str:
    """The message, followed by the last line of standard error that names an error.

    If no line names one, the last line follows.
    """
    lines = [line.strip() for line in error_lines if line.strip()]
    naming_an_error = [line for line in lines if "error" in line.lower()]
    last = (naming_an_error or lines or [""])[-1]
    return f"{message}; its last message: {last}" if last else message
