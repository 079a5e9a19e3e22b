"""One worker at work for Slicer: its events are received, and it can be cancelled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from SAMFineTunePanel.worker.qprocess_transport import QProcessTransport

if TYPE_CHECKING:
    from SAMFineTuneLib.jobs.worker_output import Outcome
    from SAMFineTuneLib.worker.events import Event


class WorkerProcess:
    """A worker on one job folder. It must be kept until `onEnded` was called.

    Args:
        folder: holds job.json.
        onEvent: called with each event of the worker (SAMFineTuneLib.worker.events).
        onEnded: called once with the Outcome (SAMFineTuneLib.jobs.worker_output).
    """

    def __init__(self, folder: Path, onEvent: Callable[[Event], None], onEnded: Callable[[Outcome], None]) -> None:
        from SAMFineTuneLib.jobs.client import JobClient
        from SAMFineTuneLib.jobs.folder import JobFolder

        self._onEnded = onEnded
        self._folder = JobFolder(folder)
        self._transport = QProcessTransport(self._command)
        self._client = JobClient(self._folder, self._transport, onEvent, self._onClientEnded)

    @property
    def processID(self) -> int:
        """The ID of the worker, or of the launcher that it runs behind; 0 when it does not run."""
        return self._transport.processID

    def start(self) -> None:
        """Start the worker; failures are told through `onEnded`."""
        self._client.start()

    def cancel(self) -> None:
        """Ask the worker to stop; after a grace time end it with all its children. Returns at once."""
        self._client.cancel()

    def finishEarly(self) -> None:
        """Ask the worker to stop early and keep the best so far."""
        self._client.finish_early()

    def endNow(self) -> None:
        """End the worker with all its children, without asking and without waiting."""
        self._client.end_now()

    def waitUntilEnded(self, milliseconds: int) -> bool:
        """Block until the worker has ended; for the moment at which Slicer closes."""
        return self._transport.waitUntilEnded(milliseconds)

    def _command(self, program: Path) -> list[str]:
        from SAMFineTuneLib.jobs import client

        return client.worker_command(self._folder.path, program)

    def _onClientEnded(self, outcome: Outcome) -> None:
        fault = self._client.listener_fault
        if fault is not None:
            # Goes where Slicer shows faults; the job has ended all the same.
            sys.excepthook(type(fault), fault, fault.__traceback__)
        self._onEnded(outcome)
