"""Reads the lines of a worker on a job: its events, and how the job ended.

Imports neither torch nor a user interface: both Slicer's process and the shell use it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.worker.ending import how_it_ended, with_error_lines
from SAMFineTuneLib.worker.events import ErrorEvent, Event, Log, Result, parse_line
from SAMFineTuneLib.worker.failure import EXIT_CANCELLED, EXIT_DONE, EXIT_OUR_FAULT

_KEPT_ERROR_LINES = 400


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        exit_code: 0 done, 1 a fault in the program, 2 bad input, 3 cancelled.
        result: the result, if the exit code is 0.
        error: what went wrong, if it is not.
    """

    exit_code: int
    result: dict[str, Any] | None = None
    error: ErrorEvent | None = None


class WorkerOutput:
    """Receives a worker's lines, reports its events, and finds out how the job ended.

    Args:
        folder: the job's folder; the last error lines of a worker that died are written to its log.
        on_event: called with each event, in the thread that hands over the line.
    """

    def __init__(self, folder: JobFolder, on_event: Callable[[Event], None] | None = None) -> None:
        self._folder = folder
        self._on_event = on_event
        self._error_lines: deque[str] = deque(maxlen=_KEPT_ERROR_LINES)
        self._result: dict[str, Any] | None = None
        self._error: ErrorEvent | None = None
        self._listener_fault: BaseException | None = None

    @property
    def gave_ending(self) -> bool:
        """Whether the worker has given its result or its error, after which it ends."""
        return self._result is not None or self._error is not None

    @property
    def listener_fault(self) -> BaseException | None:
        """What `on_event` raised, if it did; after that it is not called again."""
        return self._listener_fault

    def take_output(self, line: str) -> None:
        """Receive a line of the worker's standard output."""
        event = parse_line(line)
        if isinstance(event, Result):
            self._result = event.result
        elif isinstance(event, ErrorEvent):
            self._error = event
        self._report(event)

    def take_error(self, line: str) -> None:
        """Receive a line of the worker's standard error."""
        self._error_lines.append(line)
        self._report(Log(level="debug", message=line))

    def outcome(self, returned: int, cancel_asked: bool) -> Outcome:
        """How the job ended; to be called when the process has ended and all lines were received.

        Args:
            returned: exit code of the process; a negative one is the signal that killed it.
            cancel_asked: whether the client asked the worker to stop, or killed it.
        """
        if self._result is not None:
            return Outcome(EXIT_DONE, result=self._result)
        if self._error is not None:
            return Outcome(self._error.exit_code, error=self._error)
        if cancel_asked:
            cancelled = ErrorEvent(code="cancelled", message="Cancelled", exit_code=EXIT_CANCELLED)
            return Outcome(EXIT_CANCELLED, error=cancelled)
        return self._died(returned)

    def _report(self, event: Event) -> None:
        if self._on_event is None or self._listener_fault is not None:
            return
        try:
            self._on_event(event)
        # It is kept for the client, because lines must still be read from the worker's pipe.
        except Exception as error:
            self._listener_fault = error

    def _died(self, returned: int) -> Outcome:
        message = f"The worker ended without a result ({how_it_ended(returned)})"
        lines = [line for line in self._error_lines if line.strip()]
        self._keep_error_lines(message, lines)
        return Outcome(
            EXIT_OUR_FAULT,
            error=ErrorEvent(
                code="worker_died",
                message=with_error_lines(message, lines),
                remedy="If memory ran out, take a smaller batch or input size; else see worker.log "
                "of the job folder",
                exit_code=EXIT_OUR_FAULT,
            ),
        )

    def _keep_error_lines(self, message: str, lines: list[str]) -> None:
        with (
            suppress(OSError),
            self._folder.log_file.open("a", encoding="utf-8", errors="replace") as file,
        ):
            file.write("\n".join([message, *lines, ""]))
