"""One worker at work for Slicer: a QProcess whose lines are heard and whose whole tree can be ended."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import qt
from slicer.i18n import tr as _

# The worker ends itself 1.5 s after it was asked to; what has not gone then is ended from here.
CANCEL_GRACE_MS = 2000
# A worker that has told its result and hangs while it ends is not waited for any longer.
_EXIT_GRACE_MS = 10000
# Set by Slicer for its own Python; another Python would take its modules from there.
_SLICERS_PYTHON_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONSTARTUP")


def pythonProgram() -> Path:
    """The Python that runs the worker: Slicer's PythonSlicer, or, outside of Slicer, the one that runs this."""
    found = shutil.which("PythonSlicer")
    return Path(found or sys.executable)


def environmentFor(program: Path) -> dict[str, str]:
    """Slicer's environment; without its Python settings where the program is not Slicer's own Python."""
    if program.stem.lower() == "pythonslicer":
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if name not in _SLICERS_PYTHON_VARIABLES}


def processEnvironment(program: Path) -> qt.QProcessEnvironment:
    """What a process of the library is started with."""
    from SAMFineTuneLib.jobs.worker_environment import worker_environment

    environment = qt.QProcessEnvironment()
    for name, value in worker_environment(environmentFor(program)).items():
        environment.insert(name, value)
    return environment


class WorkerProcess:
    """A worker on one job folder. It must be kept until `onEnded` was called.

    Args:
        folder: holds job.json.
        onEvent: called with each event of the worker (SAMFineTuneLib.jobs.events).
        onEnded: called once with the Outcome (SAMFineTuneLib.jobs.worker_ear).
    """

    def __init__(self, folder: Path, onEvent: Callable, onEnded: Callable) -> None:
        from SAMFineTuneLib.jobs.folder import JobFolder
        from SAMFineTuneLib.jobs.line_splitter import LineSplitter
        from SAMFineTuneLib.jobs.worker_ear import WorkerEar

        self.folder = JobFolder(folder)
        self._onEnded = onEnded
        self._ear = WorkerEar(self.folder, onEvent)
        self._outputLines, self._errorLines = LineSplitter(), LineSplitter()
        self._family: list = []
        self._cancelAsked = False
        self._ended = False
        self._process = qt.QProcess()
        self._process.connect("readyReadStandardOutput()", self._hearOutput)
        self._process.connect("readyReadStandardError()", self._hearErrors)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onError)
        self._endTimer = qt.QTimer()
        self._endTimer.setSingleShot(True)
        self._endTimer.connect("timeout()", self.endNow)

    @property
    def processID(self) -> int:
        """Of the worker, or of the launcher that it runs behind; 0 when it does not run."""
        return int(self._process.processId())

    def start(self) -> None:
        """Start the worker; failures are told through `onEnded`."""
        from SAMFineTuneLib.jobs.process import worker_command

        program = pythonProgram()
        self._process.setProcessEnvironment(processEnvironment(program))
        command = worker_command(self.folder.path, program)
        self._process.start(command[0], command[1:])

    def cancel(self) -> None:
        """Ask the worker to stop; after a grace time end it with all its children. Returns at once."""
        if self._cancelAsked or self._ended:
            return
        self._cancelAsked = True
        self._noteFamily()
        self._ask("cancel", self.folder.cancel_file)
        self._endTimer.start(CANCEL_GRACE_MS)

    def finishEarly(self) -> None:
        """Ask the worker to stop early and keep the best so far."""
        if not self._ended:
            self._ask("finish", self.folder.finish_file)

    def endNow(self) -> None:
        """End the worker with all its children, without asking and without waiting."""
        import psutil

        self._noteFamily()
        for process in self._family:
            try:
                process.kill()
            except psutil.Error:
                # It has gone by itself, or is going.
                continue

    def waitUntilEnded(self, milliseconds: int) -> bool:
        """Block until the worker has ended; for the moment at which Slicer closes."""
        return self._ended or bool(self._process.waitForFinished(milliseconds))

    def _ask(self, word: str, file: Path) -> None:
        # Where it cannot be written, the line on standard input says the same.
        with suppress(OSError):
            file.touch()
        self._process.write(f"{word}\n".encode())

    def _noteFamily(self) -> None:
        """Remember the worker and its children: they outlive a launcher that is killed."""
        import psutil

        from SAMFineTuneLib.jobs.process_tree import descendants

        if self.processID:
            try:
                self._family = [*descendants(self.processID), psutil.Process(self.processID), *self._family]
            except psutil.Error:
                return

    def _hearOutput(self) -> None:
        for line in self._outputLines.feed(bytesOf(self._process.readAllStandardOutput())):
            self._ear.take_output(line)
        if self._ear.spoke_last_at is not None and not self._endTimer.isActive():
            self._endTimer.start(_EXIT_GRACE_MS)

    def _hearErrors(self) -> None:
        for line in self._errorLines.feed(bytesOf(self._process.readAllStandardError())):
            self._ear.take_error(line)

    def _onError(self, error) -> None:
        # All other errors are followed by finished().
        if error == qt.QProcess.FailedToStart:
            self._end(-1, _("Python cannot be started: {reason}").format(reason=self._process.errorString()))

    def _onFinished(self, exitCode: int, exitStatus) -> None:
        self._hearOutput()
        self._hearErrors()
        for splitter, take in ((self._outputLines, self._ear.take_output), (self._errorLines, self._ear.take_error)):
            for line in splitter.rest():
                take(line)
        crashed = exitStatus == qt.QProcess.CrashExit
        # Where a process was killed, Qt gives the signal's number as its exit code.
        self._end(-exitCode if crashed and os.name != "nt" else exitCode)

    def _end(self, returned: int, reason: str = "") -> None:
        if self._ended:
            return
        self._ended = True
        self._endTimer.stop()
        if self._cancelAsked:
            # What a killed launcher has left behind.
            self.endNow()
        if reason:
            self._ear.take_error(f"error: {reason}")
        outcome = self._ear.outcome(returned, self._cancelAsked)
        if self.folder.path.is_dir():
            self.folder.clear_requests()
        self._onEnded(outcome)


def bytesOf(data) -> bytes:
    """What a process has written, out of Qt's own array of bytes."""
    return bytes(data.data())
