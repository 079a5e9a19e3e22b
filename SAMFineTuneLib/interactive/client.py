"""The program's side of a correction session: what is asked when, and what a dead worker means.

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
    CarryOn,
    Close,
    Failure,
    FindMask,
    LookAt,
    Message,
    RankSlices,
    Ready,
    Stop,
    parse_message,
)
from SAMFineTuneLib.worker.ending import how_it_ended, with_last_words
from SAMFineTuneLib.worker.transport import Transport

STARTING, READY, ENDED = "starting", "ready", "ended"

Question = LookAt | FindMask | CarryOn | RankSlices
# These write masks into the shared file, and what one wrote must be read before the next does.
_WRITES_MASKS = (FindMask, CarryOn)
_KEPT_ERROR_LINES = 50


def serve_command(folder: Path, python: Path | None = None) -> list[str]:
    """The command line of a correction worker for this process."""
    program = str(python or sys.executable)
    return [program, "-m", "SAMFineTuneLib", "serve", str(folder), "--parent", str(os.getpid())]


@dataclass(frozen=True)
class _Asked:
    question: Question
    on_answer: Callable[[Answer], None]
    on_failure: Callable[[Failure], None]


class Conversation:
    """Asks a worker, matches its answers to what was asked, and outlives one death of it.

    Of the questions that write masks one is at work at a time; others wait. Of those that wait, a
    newer `FindMask` takes the place of an older one for the same slice, whose answer nobody wants
    any more. Every question can be asked again, so after a death all that are open are.

    Args:
        transport: the worker's process.
        on_message: called with each message that is no answer to a question.
        on_restart: called with what the worker said last, when it died and is started again.
        on_end: called once, when the session cannot go on, with why. Not after `close`.
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
        self._at_work: dict[int, _Asked] = {}
        self._waiting: deque[_Asked] = deque()
        self._error_lines: deque[str] = deque(maxlen=_KEPT_ERROR_LINES)

    @property
    def open_questions(self) -> int:
        """How many were asked and are not answered."""
        return len(self._at_work) + len(self._waiting)

    def start(self) -> None:
        """Start the worker; questions may be asked from now on, and wait for it."""
        self._transport.start(self)

    def ask(
        self,
        question: Question,
        on_answer: Callable[[Answer], None],
        on_failure: Callable[[Failure], None],
    ) -> int:
        """Ask the worker; returns at once.

        Args:
            question: its id is given here.
            on_answer: called once, unless a newer question for the same slice takes its place, the
                question is dropped, or the session ends. Masks must be read before it returns.
            on_failure: called in its place when the worker cannot do it.

        Returns:
            The id of the question; 0 where the session has ended, in which case nothing is called.
        """
        if self.state == ENDED:
            return 0
        self._last_id += 1
        question = question.model_copy(update={"id": self._last_id})
        if isinstance(question, FindMask):
            self._drop_waiting(question.slice)
        self._waiting.append(_Asked(question, on_answer, on_failure))
        self._ask_next()
        return self._last_id

    def drop_masks(self, slice_number: int | None = None) -> None:
        """Forget the `FindMask` that wait, of one slice or of all; and answers to come."""
        self._drop_waiting(slice_number)
        for number, asked in self._at_work.items():
            question = asked.question
            if isinstance(question, FindMask) and slice_number in (None, question.slice):
                self._at_work[number] = _Asked(question, _ignore, _ignore)

    def stop(self) -> None:
        """Break off the `CarryOn` at work, which then fails; one that waits fails at once."""
        waiting = [each for each in self._waiting if isinstance(each.question, CarryOn)]
        for asked in waiting:
            self._waiting.remove(asked)
        if any(isinstance(each.question, CarryOn) for each in self._at_work.values()):
            self._transport.write(Stop().model_dump_json())
        for asked in waiting:
            asked.on_failure(Failure(id=asked.question.id, code="stopped", message="Stopped"))

    def close(self) -> None:
        """The session is over: tell the worker, and hear nothing more of it."""
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
            self._ask_next()
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
        words = with_last_words(f"The correction worker ended ({how})", self._error_lines)
        if self._restarted:
            self._end()
            remedy = "start the correction again; what was accepted is in the segment"
            self._on_end(Failure(code="worker_died", message=words, remedy=remedy))
            return
        self._restarted = True
        self._error_lines.clear()
        self.state = STARTING
        self._ask_again()
        self._on_restart(words)
        # Whoever was told may have closed the session.
        if self.state == STARTING:
            self._transport.start(self)

    def _ask_again(self) -> None:
        """Have what was at work wait again, ahead of the rest."""
        asked_anew = [each.question for each in self._waiting]
        for asked in reversed(self._at_work.values()):
            if not any(_replaces(each, asked.question) for each in asked_anew):
                self._waiting.appendleft(asked)
        self._at_work.clear()

    def _ask_next(self) -> None:
        if self.state != READY:
            return
        writing = any(isinstance(each.question, _WRITES_MASKS) for each in self._at_work.values())
        for asked in list(self._waiting):
            if isinstance(asked.question, _WRITES_MASKS):
                if writing:
                    continue
                writing = True
            self._waiting.remove(asked)
            self._at_work[asked.question.id] = asked
            self._transport.write(asked.question.model_dump_json())

    def _take_answer(self, answer: Answer) -> None:
        asked = self._at_work.pop(answer.id, None)
        try:
            if asked is not None:
                asked.on_answer(answer)
        finally:
            self._ask_next()

    def _take_failure(self, failure: Failure) -> None:
        if failure.id is None:
            self._end()
            self._transport.kill()
            self._on_end(failure)
            return
        asked = self._at_work.pop(failure.id, None)
        try:
            if asked is not None:
                asked.on_failure(failure)
        finally:
            self._ask_next()

    def _drop_waiting(self, slice_number: int | None) -> None:
        for asked in list(self._waiting):
            question = asked.question
            if isinstance(question, FindMask) and slice_number in (None, question.slice):
                self._waiting.remove(asked)

    def _end(self) -> None:
        self.state = ENDED
        self._waiting.clear()
        self._at_work.clear()


def _replaces(newer: Question, older: Question) -> bool:
    """Whether nobody wants the answer to the older question once the newer one is asked."""
    if not isinstance(newer, FindMask) or not isinstance(older, FindMask):
        return False
    return newer.slice == older.slice


def _ignore(message: Answer | Failure) -> None:
    return
