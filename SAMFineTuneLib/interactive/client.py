"""The program's side of a correction: which request is sent when, and what a dead worker means.

Imports neither torch nor a user interface. The process itself is behind `Transport`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from SAMFineTuneLib.interactive.protocol import (
    Answer,
    Close,
    Failure,
    FindMask,
    LookAt,
    Message,
    Propagate,
    RankSlices,
    Ready,
    Stop,
    parse_message,
)
from SAMFineTuneLib.worker.ending import how_it_ended, with_error_lines
from SAMFineTuneLib.worker.transport import Transport

STARTING, READY, ENDED = "starting", "ready", "ended"

AnsweredRequest = LookAt | FindMask | Propagate | RankSlices
# These write masks into the shared file, and what one wrote must be read before the next does.
_WRITES_MASKS = (FindMask, Propagate)
_KEPT_ERROR_LINES = 50


def serve_command(folder: Path, python: Path | None = None) -> list[str]:
    """The command line that starts a correction worker whose parent is this process."""
    program = str(python or sys.executable)
    return [program, "-m", "SAMFineTuneLib", "serve", str(folder), "--parent", str(os.getpid())]


@dataclass(frozen=True)
class _OpenRequest:
    request: AnsweredRequest
    on_answer: Callable[[Answer], None]
    on_failure: Callable[[Failure], None]


class CorrectionClient:
    """Sends requests to a worker, matches its answers to them, and starts it again once if it dies.

    Of the requests that write masks, one is at work at a time; the others wait. A newer `FindMask`
    takes the place of an older one for the same slice that still waits, because nobody wants the
    older answer any more. Every request can be sent again, so after the worker's death all open
    requests are.

    Args:
        transport: the worker's process.
        on_message: called with each message that does not answer a request.
        on_restart: called when the worker died and is started again, with a text that says how it
            died and ends with its last error lines.
        on_end: called once, when the session cannot go on, with the reason. Not called after
            `close`.
        on_gone: called when the process has gone after the session ended.
    """

    def __init__(
        self,
        transport: Transport,
        on_message: Callable[[Message], None],
        on_restart: Callable[[str], None],
        on_end: Callable[[Failure], None],
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        self.state = STARTING
        self._on_gone = on_gone
        self._transport = transport
        self._on_message = on_message
        self._on_restart = on_restart
        self._on_end = on_end
        self._last_id = 0
        self._restarted = False
        self._at_work: dict[int, _OpenRequest] = {}
        self._waiting: deque[_OpenRequest] = deque()
        self._error_lines: deque[str] = deque(maxlen=_KEPT_ERROR_LINES)

    @property
    def open_requests(self) -> int:
        """How many requests are not answered yet."""
        return len(self._at_work) + len(self._waiting)

    def start(self) -> None:
        """Start the worker; requests may be made from now on, and wait until it is ready."""
        self._transport.start(self)

    def ask(
        self,
        request: AnsweredRequest,
        on_answer: Callable[[Answer], None],
        on_failure: Callable[[Failure], None],
    ) -> int:
        """Ask the worker; returns at once.

        Args:
            request: its id is replaced by the next free one.
            on_answer: called once, unless a newer request for the same slice takes its place, the
                request is dropped, or the session ends. Masks must be read before it returns.
            on_failure: called instead when the worker cannot fulfil the request.

        Returns:
            The id of the request; 0 if the session has ended, in which case nothing is called.
        """
        if self.state == ENDED:
            return 0
        self._last_id += 1
        request = request.model_copy(update={"id": self._last_id})
        if isinstance(request, FindMask):
            self._drop_waiting(request.slice)
        self._waiting.append(_OpenRequest(request, on_answer, on_failure))
        self._send_next()
        return self._last_id

    def drop_masks(self, slice_number: int | None = None) -> None:
        """Drop the `FindMask` requests of one slice or of all.

        Those that wait are not sent; answers to those at work are ignored when they come.
        """
        self._drop_waiting(slice_number)
        for number, each in self._at_work.items():
            request = each.request
            if isinstance(request, FindMask) and slice_number in (None, request.slice):
                self._at_work[number] = _OpenRequest(request, _ignore, _ignore)

    def stop(self) -> None:
        """Break off the `Propagate` at work, which then fails; one that waits fails at once."""
        waiting = [each for each in self._waiting if isinstance(each.request, Propagate)]
        for each in waiting:
            self._waiting.remove(each)
        if any(isinstance(each.request, Propagate) for each in self._at_work.values()):
            self._transport.write(Stop().model_dump_json())
        for each in waiting:
            each.on_failure(Failure(id=each.request.id, code="stopped", message="Stopped"))

    def close(self) -> None:
        """End the session: the worker is told to close, and whatever it still sends is ignored."""
        if self.state == ENDED:
            return
        self._end()
        self._transport.write(Close().model_dump_json())

    def take_output(self, line: str) -> None:
        """Receive a line of the worker's standard output."""
        if self.state == ENDED:
            return
        message = parse_message(line)
        if isinstance(message, Ready):
            self.state = READY
            self._on_message(message)
            self._send_next()
        elif isinstance(message, Answer):
            self._take_answer(message)
        elif isinstance(message, Failure):
            self._take_failure(message)
        else:
            self._on_message(message)

    def take_error(self, line: str) -> None:
        """Receive a line of the worker's standard error."""
        if line.strip():
            self._error_lines.append(line.strip())

    def take_end(self, returned: int, reason: str) -> None:
        """The process has gone; see `Receiver.take_end`."""
        if self.state == ENDED:
            if self._on_gone is not None:
                self._on_gone()
            return
        how = reason or how_it_ended(returned)
        text = with_error_lines(f"The correction worker ended ({how})", self._error_lines)
        if self._restarted:
            self._end()
            remedy = "start the correction again; what was accepted is in the segment"
            self._on_end(Failure(code="worker_died", message=text, remedy=remedy))
            return
        self._restarted = True
        self._error_lines.clear()
        self.state = STARTING
        self._requeue()
        self._on_restart(text)
        # `on_restart` may have closed the session.
        if self.state == STARTING:
            self._transport.start(self)

    def _requeue(self) -> None:
        """Put the requests that were at work back into the queue, ahead of those that wait."""
        waiting = [each.request for each in self._waiting]
        for each in reversed(self._at_work.values()):
            if not any(_replaces(newer, each.request) for newer in waiting):
                self._waiting.appendleft(each)
        self._at_work.clear()

    def _send_next(self) -> None:
        if self.state != READY:
            return
        writing = any(isinstance(each.request, _WRITES_MASKS) for each in self._at_work.values())
        for each in list(self._waiting):
            if isinstance(each.request, _WRITES_MASKS):
                if writing:
                    continue
                writing = True
            self._waiting.remove(each)
            self._at_work[each.request.id] = each
            self._transport.write(each.request.model_dump_json())

    def _take_answer(self, answer: Answer) -> None:
        answered = self._at_work.pop(answer.id, None)
        try:
            if answered is not None:
                answered.on_answer(answer)
        finally:
            self._send_next()

    def _take_failure(self, failure: Failure) -> None:
        if failure.id is None:
            self._end()
            self._transport.kill()
            self._on_end(failure)
            return
        failed = self._at_work.pop(failure.id, None)
        try:
            if failed is not None:
                failed.on_failure(failure)
        finally:
            self._send_next()

    def _drop_waiting(self, slice_number: int | None) -> None:
        for each in list(self._waiting):
            request = each.request
            if isinstance(request, FindMask) and slice_number in (None, request.slice):
                self._waiting.remove(each)

    def _end(self) -> None:
        self.state = ENDED
        self._waiting.clear()
        self._at_work.clear()


def _replaces(newer: AnsweredRequest, older: AnsweredRequest) -> bool:
    """Whether nobody wants the answer to the older request once the newer one is made."""
    if not isinstance(newer, FindMask) or not isinstance(older, FindMask):
        return False
    return newer.slice == older.slice


def _ignore(message: Answer | Failure) -> None:
    return
