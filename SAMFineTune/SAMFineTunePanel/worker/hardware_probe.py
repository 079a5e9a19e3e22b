"""What the worker can compute on, asked in a process of its own because torch has to be loaded for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import qt

from SAMFineTunePanel.worker.library_parts import importLibraryParts
from SAMFineTunePanel.worker.line_process import bytesOf, processEnvironment, pythonProgram


class HardwareProbe:
    """Asks once in a session of Slicer; later callers get the same answer."""

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None
        self.hasFailed = False
        # Kept after its end: a sender must not be deleted by what it calls.
        self._process: qt.QProcess | None = None
        self._asking = False
        self._callbacks: list[Callable[[dict[str, Any] | None], None]] = []

    def probe(self, callback: Callable[[dict[str, Any] | None], None]) -> None:
        """Call `callback` with what was found, or with None when that could not be learnt."""
        if self.found is not None:
            callback(self.found)
            return
        self._callbacks.append(callback)
        if not self._asking:
            self._ask()

    def _ask(self) -> None:
        importLibraryParts()
        self._asking = True
        program = pythonProgram()
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(processEnvironment(program))
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onError)
        self._process.start(str(program), ["-m", "SAMFineTuneLib", "hardware"])

    def end(self) -> None:
        """Stop asking; for the moment at which Slicer closes."""
        if self._asking:
            self._asking = False
            self._callbacks = []
            self._process.disconnect("finished(int,QProcess::ExitStatus)", self._onFinished)
            self._process.disconnect("errorOccurred(QProcess::ProcessError)", self._onError)
            self._process.kill()
            self._process.waitForFinished(1000)

    def _onFinished(self, exitCode: int, exitStatus) -> None:
        text = bytesOf(self._process.readAllStandardOutput()).decode("utf-8", "replace")
        try:
            self.found = json.loads(text) if exitCode == 0 else None
        except ValueError:
            self.found = None
        self._answer()

    def _onError(self, error) -> None:
        if error == qt.QProcess.FailedToStart:
            self._answer()

    def _answer(self) -> None:
        self._asking = False
        self.hasFailed = self.found is None
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self.found)
