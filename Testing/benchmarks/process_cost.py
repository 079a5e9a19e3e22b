"""What a process costs: wall time and peak memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class CommandCost:
    """A command that has ended.

    Attributes:
        seconds: wall time from start to end.
        peak_bytes: largest sum of the resident sets of the process and all its descendants, looked
            at ten times a second. Pages that two of them share count twice.
        result: the JSON object that it printed.
    """

    seconds: float
    peak_bytes: int
    result: dict[str, Any]


def run_command(words: Sequence[str | Path], folder: Path) -> CommandCost:
    """Runs a command that prints one JSON object; its words on stderr pass through.

    Raises:
        RuntimeError: it did not end well.
    """
    started = time.monotonic()
    output = folder / "stdout.json"
    with output.open("w", encoding="utf-8") as stdout:
        process = psutil.Popen([str(word) for word in words], stdout=stdout)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident_bytes(process))
            with contextlib.suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
                process.wait(_SECONDS_BETWEEN_LOOKS)
    seconds = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"{words[3]} ended with exit code {process.returncode}")
    return CommandCost(seconds, peak, json.loads(output.read_text(encoding="utf-8")))


def command(*words: str | Path) -> list[str | Path]:
    """A command of the library, run by this Python."""
    return [sys.executable, "-m", "SAMFineTuneLib", *words]


def own_resident_bytes() -> int:
    """Resident set of this process."""
    return int(psutil.Process().memory_info().rss)


def own_peak_bytes() -> int:
    """Largest resident set that this process ever had."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _resident_bytes(process: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
    return total
