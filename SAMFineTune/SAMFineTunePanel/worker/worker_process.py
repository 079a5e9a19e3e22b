"""One worker at work for Slicer: its events are heard, and it can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import qt

from SAMFineTunePanel.worker.line_process import LineProcess, pythonProgram

# The worker ends itself 1.5 s after it was asked to; what has not gone then is ended from here.
CANCEL_GRACE_MS = 2000
# A worker that has told its result and hangs while it ends is not waited for any longer.
_EXIT_GRACE_MS = 10000


class WorkerProcess:
    """A worker on one job folder. It must be kept until `onEnded` was called.

    Args:
        folder: holds job.json.
        onEvent: called with each event of the worker (SAMFineTuneLib.worker.events).
        onEnded: called once with the Outcome (SAMFineTuneLib.jobs.worker_output).
    """

    def __init__(self, folder: Path, onEvent: Callable, onEnded: Callable) -> None:
        from SAMFineTuneLib.jobs.folder import JobFolder
        from SAMFineTuneLib.jobs.worker_output import WorkerEar

        self.folder = JobFolder(folder)
        self._onEnded = onEnded
        self._ear = WorkerEar(self.folder, onEvent)
        self._cancelAsked = False
        self._process = LineProcess(self._takeOutput, self._ear.take_error, self._onProcessEnded)
        self._endTimer = qt.QTimer()
        self._endTimer.setSingleShot(True)
        self._endTimer.connect("timeout()", self.endNow)

    @property
    def processID(self) -> int:
        """Of the worker, or of the launcher that it runs behind; 0 when it does not run."""
        return self._process.processID

    def start(self) -> None:
        """Start the worker; failures are told through `onEnded`."""
        from SAMFineTuneLib.jobs.process import worker_command

        program = pythonProgram()
        self._process.start(program, worker_command(self.folder.path, program))

    def cancel(self) -> None:
        """Ask the worker to stop; after a grace time end it with all its children. Returns at once."""
        if self._cancelAsked or self._process.hasEnded:
            return
        self._cancelAsked = True
        self._process.noteFamily()
        self._ask("cancel", self.folder.cancel_file)
        self._endTimer.start(CANCEL_GRACE_MS)

    def finishEarly(self) -> None:
        """Ask the worker to stop early and keep the best so far."""
        if not self._process.hasEnded:
            self._ask("finish", self.folder.finish_file)

    def endNow(self) -> None:
        """End the worker with all its children, without asking and without waiting."""
        self._process.endNow()

    def waitUntilEnded(self, milliseconds: int) -> bool:
        """Block until the worker has ended; for the moment at which Slicer closes."""
        return self._process.waitUntilEnded(milliseconds)

    def _ask(self, word: str, file: Path) -> None:
        # Where it cannot be written, the line on standard input says the same.
        with suppress(OSError):
            file.touch()
        self._process.write(word)

    def _takeOutput(self, line: str) -> None:
        self._ear.take_output(line)
        if self._ear.spoke_last_at is not None and not self._endTimer.isActive():
            self._endTimer.start(_EXIT_GRACE_MS)

    def _onProcessEnded(self, returned: int, reason: str) -> None:
        from SAMFineTuneLib.jobs.folder import RUNNING

        self._endTimer.stop()
        if self._cancelAsked:
            # What a killed launcher has left behind.
            self.endNow()
        if reason:
            self._ear.take_error(f"error: {reason}")
        outcome = self._ear.outcome(returned, self._cancelAsked)
        # Where another worker has the folder, requests there are for that one.
        mine = outcome.error is None or outcome.error.code != RUNNING
        if mine and self.folder.path.is_dir():
            self.folder.clear_requests()
        self._onEnded(outcome)
