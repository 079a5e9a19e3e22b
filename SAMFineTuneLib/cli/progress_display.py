"""Shows a worker's events in the shell: a progress bar on a terminal, otherwise lines of text."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from SAMFineTuneLib.worker.events import Event, Log, Preview, Progress

_SECONDS_BETWEEN_LINES = 5.0


class ProgressDisplay:
    """Shows progress and messages on standard error.

    Args:
        keeps_previews: whether the folder with the previews is kept afterwards, so that their paths
            are worth showing.
    """

    def __init__(self, keeps_previews: bool = True) -> None:
        self._keeps_previews = keeps_previews
        self._bar: tqdm[Any] | None = None
        self._phase: str | None = None
        self._last_line_at = float("-inf")

    def show(self, event: Event) -> None:
        """Show one event; the command itself prints results and errors."""
        if isinstance(event, Progress):
            self._show_progress(event)
        elif isinstance(event, Log) and event.level != "debug":
            prefix = "" if event.level == "info" else f"{event.level}: "
            self._write(prefix + event.message)
        elif isinstance(event, Preview) and self._keeps_previews:
            self._write(f"preview: {event.path}")

    def close(self) -> None:
        """End the bar and leave its last state on the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show_progress(self, event: Progress) -> None:
        new_phase = event.phase != self._phase
        self._phase = event.phase
        if sys.stderr.isatty():
            self._draw(event, new_phase)
        else:
            self._line(event, new_phase)

    def _draw(self, event: Progress, new_phase: bool) -> None:
        if new_phase or self._bar is None:
            self.close()
            self._bar = tqdm(
                total=event.steps,
                desc=event.phase or None,
                file=sys.stderr,
                dynamic_ncols=True,
                leave=True,
            )
        self._bar.total = event.steps
        self._bar.n = event.step
        self._bar.set_postfix_str(", ".join(_figures(event)), refresh=False)
        self._bar.refresh()

    def _line(self, event: Progress, new_phase: bool) -> None:
        now = time.monotonic()
        last = event.steps is not None and event.step >= event.steps
        if not (new_phase or last) and now < self._last_line_at + _SECONDS_BETWEEN_LINES:
            return
        self._last_line_at = now
        place = f"{event.step}" if event.steps is None else f"{event.step} of {event.steps}"
        parts = [f"{event.phase or 'step'} {place}", *_figures(event)]
        if event.eta_s is not None and not last:
            parts.append(f"about {_duration(event.eta_s)} left")
        self._write(", ".join(parts))

    def _write(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def _figures(event: Progress) -> list[str]:
    figures = []
    if event.loss is not None:
        figures.append(f"loss {event.loss:.3f}")
    if event.validation_dsc is not None:
        figures.append(f"validation DSC {event.validation_dsc:.3f}")
    return figures


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
