"""The client's side of a job: start its worker, receive its events, stop it, learn how it ended.

Imports neither torch nor a user interface: Slicer's process and the shell use it alike.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from SAMFineTuneLib.jobs.folder import RUNNING, JobFolder
from SAMFineTuneLib.jobs.worker_output import Outcome, WorkerOutput
from SAMFineTuneLib.worker.events import Event
from SAMFineTuneLib.worker.transport import Transport

# A worker that was asked to stop ends by itself after 1.5 s; after this time it is killed.
CANCEL_GRACE_S = 2.0
# A worker that has given its result but does not end is killed after this time.
EXIT_GRACE_S = 10.0


def worker_command(folder: Path, python: Path | None = None) -> list[str]:
    """The command line that starts a worker on a job's folder, with this process as its parent."""
    program = str(python or sys.executable)
    return [program, "-m", "SAMFineTuneLib", "run", str(folder), "--parent", str(os.getpid())]


class JobClient:
    """One worker at work on one job folder.

    Args:
        folder: holds job.json.
        transport: the worker's process.
        on_event: called with each event, in the thread in which the transport hands over lines.
        on_end: called once with how the job ended, in the thread in which the transport hands over
            the end.
        grace_s: seconds that a cancelled worker has to end by itself.

    Attributes:
        outcome: how the job ended; None before it has ended.
        cancel_asked: whether this client asked the worker to stop, or killed it.
    """

    def __init__(
        self,
        folder: JobFolder,
        transport: Transport,
        on_event: Callable[[Event], None] | None = None,
        on_end: Callable[[Outcome], None] | None = None,
        grace_s: float = CANCEL_GRACE_S,
    ) -> None:
        self.folder = folder
        self.outcome: Outcome | None = None
        self.cancel_asked = False
        self._transport = transport
        self._output = WorkerOutput(folder, on_event)
        self._on_end = on_end
        self._grace_s = grace_s
        self._is_ending = False

    @property
    def listener_fault(self) -> BaseException | None:
        """What `on_event` raised, if it did; it was not called again."""
        return self._output.listener_fault

    def start(self) -> None:
        """Start the worker; as `Transport.start`."""
        self._transport.start(self)

    def cancel(self) -> None:
        """Ask the worker to stop; after the grace time kill it with all its children.

        Returns at once.
        """
        if self.cancel_asked or self.outcome is not None:
            return
        # This is set even if the worker has just ended, because Ctrl-C in a shell reaches it too.
        self.cancel_asked = True
        self._transport.note_children()
        self._ask("cancel", self.folder.cancel_file)
        self._transport.call_later(self._grace_s, self._transport.kill)

    def finish_early(self) -> None:
        """Ask the worker to stop early and keep the best model so far."""
        if self.outcome is None:
            self._ask("finish", self.folder.finish_file)

    def end_now(self) -> None:
        """Kill the worker with all its children, without asking it to stop."""
        self.cancel_asked = True
        self._transport.kill()

    def take_output(self, line: str) -> None:
        """Receive a line of the worker's standard output; from the transport."""
        self._output.take_output(line)
        if self._output.gave_ending and not self._is_ending:
            self._is_ending = True
            self._transport.call_later(EXIT_GRACE_S, self._transport.kill)

    def take_error(self, line: str) -> None:
        """Receive a line of the worker's standard error; from the transport."""
        self._output.take_error(line)

    def take_end(self, returned: int, reason: str) -> None:
        """The process has gone; from the transport."""
        if self.cancel_asked:
            # A launcher that was killed may have left the worker itself running.
            self._transport.kill()
        if reason:
            self._output.take_error(f"error: {reason}")
        outcome = self._output.outcome(returned, self.cancel_asked)
        # If another worker has the folder, the request files there are meant for that one.
        is_own = outcome.error is None or outcome.error.code != RUNNING
        if is_own and self.folder.path.is_dir():
            with suppress(OSError):
                self.folder.clear_requests()
        self.outcome = outcome
        if self._on_end is not None:
            self._on_end(outcome)

    def _ask(self, word: str, file: Path) -> None:
        # If the file cannot be written, the line on standard input still reaches the worker.
        with suppress(OSError):
            file.touch()
        self._transport.write(word)
