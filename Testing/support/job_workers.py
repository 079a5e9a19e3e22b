"""Jobs of the module that a pretended worker does, and models that nobody has trained."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from Testing.support.repository import REPOSITORY

FAKE = REPOSITORY / "Testing" / "support" / "fake_job_worker.py"


def pretend(monkeypatch) -> None:
    """Have jobs done by the pretended worker from now on."""
    from SAMFineTuneLib.jobs import client

    def command(folder, python=None) -> list[str]:
        return [sys.executable, str(FAKE), str(folder), "--parent", str(os.getpid())]

    monkeypatch.setattr(client, "worker_command", command)


def write_model(name: str, *labels: str, channels=()):
    """A tuned model without weights in the user's library, as the panel lists it."""
    from SAMFineTuneLib.models.library import find_model, models_folder
    from Testing.support import model_files

    model_files.write_model(models_folder() / f"{name}.safetensors", labels, channels=channels)
    return find_model(name)


class InProcessWorker:
    """Does what the pretended worker does, soon after it was started, in this process.

    It stands for SAMFineTunePanel.worker.worker_process.WorkerProcess where what a process does is
    of no account: to start one takes a second.
    """

    processID = 0  # noqa: N815 - as Slicer's own

    def __init__(self, folder, onEvent, onEnded) -> None:  # noqa: N803
        self._folder, self._ended, self._cancelled = folder, onEnded, False

    def start(self) -> None:
        import qt

        qt.QTimer.singleShot(5, self._work)

    def cancel(self) -> None:
        self._cancelled = True

    finishEarly = endNow = cancel  # noqa: N815

    def waitUntilEnded(self, milliseconds: int) -> bool:  # noqa: N802
        return True

    def _runners(self) -> dict[str, Any]:
        from Testing.support import fake_job_worker

        return {"finetune": fake_job_worker.finetune, "apply": fake_job_worker.apply}

    def _work(self) -> None:
        from types import SimpleNamespace

        from SAMFineTuneLib.jobs.folder import JobFolder
        from SAMFineTuneLib.jobs.schema import read_job
        from SAMFineTuneLib.jobs.worker_output import Outcome

        def nothing(*arguments, **named) -> bool:
            return False

        quiet = SimpleNamespace(
            progress=nothing,
            log=nothing,
            warning=nothing,
            preview=nothing,
            raise_if_cancelled=nothing,
            cancelled=nothing,
            finish_requested=nothing,
        )
        if self._cancelled:
            self._ended(Outcome(exit_code=3))
            return
        job, folder = read_job(self._folder), JobFolder(self._folder)
        try:
            result = self._runners()[job.kind](job, folder, quiet, quiet)
        except BaseException:
            # So that nobody waits for it; the fault itself fails the test, too.
            self._ended(Outcome(exit_code=1))
            raise
        # A worker's result comes as JSON.
        self._ended(Outcome(exit_code=0, result=json.loads(json.dumps(result))))


class LearningInProcess(InProcessWorker):
    """Does what the real worker does, in this process, which loads the tensor libraries once.

    For several jobs whose results count, and not how they come about: each process of theirs would
    take four to seven seconds of a processor to load them.
    """

    def _runners(self) -> dict[str, Any]:
        from SAMFineTuneLib.tasks.runners import RUNNERS

        return RUNNERS


def pretend_in_process(monkeypatch) -> None:
    """Have jobs done as by the pretended worker, and without a process, from now on."""
    from SAMFineTunePanel.jobs import job

    monkeypatch.setattr(job, "WorkerProcess", InProcessWorker)


def learn_in_process(monkeypatch) -> None:
    """Have jobs done as by the real worker, and without a process, from now on."""
    from SAMFineTunePanel.jobs import job

    monkeypatch.setattr(job, "WorkerProcess", LearningInProcess)
