"""A process of the library as Slicer runs it: lines in, lines out, and a tree that can be ended whole."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import qt
from slicer.i18n import tr as _

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
    from SAMFineTuneLib.worker.environment import worker_environment

    environment = qt.QProcessEnvironment()
    for name, value in worker_environment(environmentFor(program)).items():
        environment.insert(name, value)
    return environment


class LineProcess:
    """A process whose output is heard line by line. It must be kept until `onEnded` was called.

    Args:
        onOutput: called with each line of its standard output.
        onError: called with each line of its standard error.
        onEnded: called once with its exit code (negative: the signal that killed it), and, where it could
            not be started, with the reason.
    """

    def __init__(
        self,
        onOutput: Callable[[str], None],
        onError: Callable[[str], None],
        onEnded: Callable[[int, str], None],
    ) -> None:
        from SAMFineTuneLib.worker.line_splitter import LineSplitter

        self._onEnded = onEnded
        self._outputLines, self._errorLines = LineSplitter(), LineSplitter()
        self._onOutput, self._onErrorLine = onOutput, onError
        self._family: list = []
        self.hasEnded = False
        self._process = qt.QProcess()
        self._process.connect("readyReadStandardOutput()", self._hearOutput)
        self._process.connect("readyReadStandardError()", self._hearErrors)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)

    @property
    def processID(self) -> int:
        """Of the process, or of the launcher that it runs behind; 0 when it does not run."""
        return int(self._process.processId())

    def start(self, program: Path, command: list[str]) -> None:
        """Start it; returns at once. Failures are told through `onEnded`.

        Args:
            program: the Python that runs it, which decides on the environment.
            command: the whole command line.
        """
        self._process.setProcessEnvironment(processEnvironment(program))
        self._process.start(command[0], command[1:])

    def write(self, line: str) -> None:
        """Write a line on its standard input."""
        self._process.write(f"{line}\n".encode())

    def endNow(self) -> None:
        """End it with all its children, without asking and without waiting."""
        import psutil

        self.noteFamily()
        for process in self._family:
            try:
                process.kill()
            except psutil.Error:
                # It has gone by itself, or is going.
                continue

    def waitUntilEnded(self, milliseconds: int) -> bool:
        """Block until it has ended; for the moment at which Slicer closes."""
        return self.hasEnded or bool(self._process.waitForFinished(milliseconds))

    def noteFamily(self) -> None:
        """Remember it and its children: they outlive a launcher that is killed."""
        import psutil

        from SAMFineTuneLib.worker.process_tree import descendants

        if self.processID:
            try:
                self._family = [*descendants(self.processID), psutil.Process(self.processID), *self._family]
            except psutil.Error:
                return

    def _hearOutput(self) -> None:
        self._tell(self._onOutput, self._outputLines.feed(bytesOf(self._process.readAllStandardOutput())))

    def _hearErrors(self) -> None:
        self._tell(self._onErrorLine, self._errorLines.feed(bytesOf(self._process.readAllStandardError())))

    def _tell(self, listener: Callable[[str], None], lines: list[str]) -> None:
        for line in lines:
            try:
                listener(line)
            # A listener at fault must not swallow the lines behind: its fault goes where Slicer shows faults.
            except Exception:
                sys.excepthook(*sys.exc_info())

    def _onProcessError(self, error) -> None:
        # All other errors are followed by finished().
        if error == qt.QProcess.FailedToStart:
            self._end(-1, _("Python cannot be started: {reason}").format(reason=self._process.errorString()))

    def _onFinished(self, exitCode: int, exitStatus) -> None:
        self._hearOutput()
        self._hearErrors()
        self._tell(self._onOutput, self._outputLines.rest())
        self._tell(self._onErrorLine, self._errorLines.rest())
        crashed = exitStatus == qt.QProcess.CrashExit
        # Where a process was killed, Qt gives the signal's number as its exit code.
        self._end(-exitCode if crashed and os.name != "nt" else exitCode, "")

    def _end(self, returned: int, reason: str) -> None:
        if self.hasEnded:
            return
        self.hasEnded = True
        self._onEnded(returned, reason)


def bytesOf(data) -> bytes:
    """What a process has written, out of Qt's own array of bytes."""
    return bytes(data.data())
