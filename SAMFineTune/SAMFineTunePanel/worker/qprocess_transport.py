"""A process of the library as Slicer runs it: lines in, lines out, and a tree that can be ended whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from SAMFineTunePanel.worker.python_program import processEnvironment, pythonProgram

if TYPE_CHECKING:
    import psutil

    from SAMFineTuneLib.worker.transport import Receiver


class QProcessTransport:
    """SAMFineTuneLib.worker.transport.Transport by Qt's process: everything comes in Slicer's main thread.

    It must be kept until the receiver was told the end.

    Args:
        command: gives the command line for the Python that it is called with.
    """

    def __init__(self, command: Callable[[Path], list[str]]) -> None:
        self._command = command
        self._run: _Run | None = None

    @property
    def processID(self) -> int:
        """The ID of the process, or of the launcher that it runs behind; 0 when it does not run."""
        return self._run.processID if self._run is not None else 0

    @property
    def hasEnded(self) -> bool:
        """Whether no process runs: none was started, or the last one has gone."""
        return self._run is None or self._run.hasEnded

    # The names from here on are those of the library's protocol.

    def start(self, receiver: Receiver) -> None:
        """Start a process; returns at once. Failures are told through the receiver's `take_end`."""
        if self._run is not None:
            self._run.receiver = None
        program = pythonProgram()
        self._run = _Run(receiver)
        self._run.start(program, self._command(program))

    def write(self, line: str) -> None:
        """Write a line on its standard input."""
        if self._run is not None and not self._run.hasEnded:
            self._run.write(line)

    def note_children(self) -> None:
        """Remember it and its children: they outlive a launcher that is killed."""
        if self._run is not None:
            self._run.noteFamily()

    def kill(self) -> None:
        """End it with all its children, without asking and without waiting."""
        if self._run is not None:
            self._run.endNow()

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after a time, unless the process has ended by then."""
        run = self._run
        qt.QTimer.singleShot(round(1000 * seconds), lambda: None if run is None or run.hasEnded else action())

    def waitUntilEnded(self, milliseconds: int) -> bool:
        """Block until it has ended; for the moment at which Slicer closes."""
        return self._run is None or self._run.waitUntilEnded(milliseconds)


class _Run:
    """One process, from its start to its end."""

    def __init__(self, receiver: Receiver) -> None:
        from SAMFineTuneLib.worker.line_splitter import LineSplitter

        self.receiver: Receiver | None = receiver
        self.hasEnded = False
        self._outputLines, self._errorLines = LineSplitter(), LineSplitter()
        self._family: list[psutil.Process] = []
        self._process = qt.QProcess()
        self._process.connect("readyReadStandardOutput()", self._readOutput)
        self._process.connect("readyReadStandardError()", self._readErrors)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)

    @property
    def processID(self) -> int:
        return int(self._process.processId())

    def start(self, program: Path, command: list[str]) -> None:
        self._process.setProcessEnvironment(processEnvironment(program))
        self._process.start(command[0], command[1:])

    def write(self, line: str) -> None:
        self._process.write(f"{line}\n".encode())

    def noteFamily(self) -> None:
        import psutil

        from SAMFineTuneLib.worker.process_tree import descendants

        if self.processID:
            try:
                self._family = [*descendants(self.processID), psutil.Process(self.processID), *self._family]
            except psutil.Error:
                return

    def endNow(self) -> None:
        import psutil

        self.noteFamily()
        for process in self._family:
            try:
                process.kill()
            except psutil.Error:
                # It has gone by itself, or is going.
                continue

    def waitUntilEnded(self, milliseconds: int) -> bool:
        return self.hasEnded or bool(self._process.waitForFinished(milliseconds))

    def _readOutput(self) -> None:
        self._handOver("take_output", self._outputLines.feed(bytesOf(self._process.readAllStandardOutput())))

    def _readErrors(self) -> None:
        self._handOver("take_error", self._errorLines.feed(bytesOf(self._process.readAllStandardError())))

    def _handOver(self, take: str, lines: list[str]) -> None:
        for line in lines:
            try:
                if self.receiver is not None:
                    getattr(self.receiver, take)(line)
            # A receiver at fault must not swallow the lines behind: its fault goes where Slicer shows faults.
            except Exception:
                sys.excepthook(*sys.exc_info())

    def _onProcessError(self, error: qt.QProcess.ProcessError) -> None:
        # All other errors are followed by finished().
        if error == qt.QProcess.FailedToStart:
            self._end(-1, _("Python cannot be started: {reason}").format(reason=self._process.errorString()))

    def _onFinished(self, exitCode: int, exitStatus: qt.QProcess.ExitStatus) -> None:
        self._readOutput()
        self._readErrors()
        self._handOver("take_output", self._outputLines.rest())
        self._handOver("take_error", self._errorLines.rest())
        crashed = exitStatus == qt.QProcess.CrashExit
        # Where a process was killed, Qt gives the signal's number as its exit code.
        self._end(-exitCode if crashed and os.name != "nt" else exitCode, "")

    def _end(self, returned: int, reason: str) -> None:
        if self.hasEnded:
            return
        self.hasEnded = True
        if self.receiver is not None:
            self.receiver.take_end(returned, reason)


def bytesOf(data: qt.QByteArray) -> bytes:
    """What a process has written, out of Qt's own array of bytes."""
    return bytes(data.data())
