"""A job in its own process, for callers that wait for it: the shell and Python programs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from SAMFineTuneLib.jobs.client import CANCEL_GRACE_S, JobClient, worker_command
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.worker_output import Outcome
from SAMFineTuneLib.worker.events import Event
from SAMFineTuneLib.worker.subprocess_transport import SubprocessTransport


class WorkerProcess:
    """One worker at work on one job folder.

    Args:
        folder: holds job.json.
        on_event: called with each event, from a thread of this object.
        python: the Python that runs the worker; by default the one that runs this process.
        grace_s: seconds that a cancelled worker has to end by itself.
        command: the whole command line, instead of the usual one.
    """

    def __init__(
        self,
        folder: Path,
        on_event: Callable[[Event], None] | None = None,
        python: Path | None = None,
        grace_s: float = CANCEL_GRACE_S,
        command: Sequence[str] | None = None,
    ) -> None:
        self.folder = JobFolder(Path(folder).absolute())
        self._transport = SubprocessTransport(command or worker_command(self.folder.path, python))
        self._ended = threading.Event()
        self._client = JobClient(
            self.folder, self._transport, on_event, lambda _: self._ended.set(), grace_s
        )

    @property
    def pid(self) -> int:
        """Process id of the worker, or of its launcher if Python is started by one."""
        return self._transport.pid

    @property
    def cancel_asked(self) -> bool:
        """Whether the worker was asked to stop, or killed."""
        return self._client.cancel_asked

    def start(self) -> None:
        """Start the worker.

        Raises:
            InputError: the Python to run cannot be started.
        """
        self._client.start()

    def running(self) -> bool:
        """Whether the worker still runs."""
        return self._transport.is_running

    def cancel(self) -> None:
        """Ask the worker to stop; after the grace time kill it with all its children.

        Returns at once; `wait` waits until it has ended.
        """
        self._client.cancel()

    def finish_early(self) -> None:
        """Ask the worker to stop early and keep the best model so far."""
        self._client.finish_early()

    def end_now(self) -> None:
        """Kill the worker with all its children, without asking it to stop."""
        self._client.end_now()

    def wait(self, timeout_s: float | None = None) -> Outcome | None:
        """Wait for the end of the job; returns how it ended, None if it has not after `timeout_s`.

        Raises:
            BaseException: what `on_event` raised, if it did.
        """
        if not self._ended.wait(timeout_s):
            return None
        if self._client.listener_fault is not None:
            raise self._client.listener_fault
        return self._client.outcome
