"""Commands whose job runs in this process: what tells the user is the same, the start is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from SAMFineTuneLib import cli
from SAMFineTuneLib.cli.progress_display import ProgressDisplay
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.process import Outcome
from SAMFineTuneLib.jobs.schema import read_job
from SAMFineTuneLib.tasks.runners import RUNNERS
from SAMFineTuneLib.worker.events import Event, EventWriter
from SAMFineTuneLib.worker.failure import error_event


class ShowingWriter(EventWriter):
    """Events for the job folder and for the person at the shell."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, None)
        self._display = ProgressDisplay()

    def emit(self, event: Event) -> None:
        super().emit(event)
        self._display.show(event)


def run_here(folder: JobFolder, keeps_previews: bool = True) -> Outcome:
    """Does the job of a folder as a worker would, in this process."""
    events = ShowingWriter(folder.path)
    try:
        job = read_job(folder.path)
        return Outcome(0, RUNNERS[job.kind](job, folder, events, Control(folder)))
    except Exception as error:
        told = error_event(error)
        if told.exit_code == 1:
            raise
        return Outcome(told.exit_code, error=told)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """The one JSON object on standard output."""
        return json.loads(self.out)

    @property
    def error_lines(self) -> list[str]:
        """Lines on standard error that tell a fault."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


Shell = Callable[..., Ended]


def shell_of(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cache: Path
) -> Shell:
    """A shell whose commands run in this process."""
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(cache))
    monkeypatch.setattr("SAMFineTuneLib.cli.execution.run_worker", run_here)

    def shell(*words: object) -> Ended:
        capfd.readouterr()
        code = cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return shell
