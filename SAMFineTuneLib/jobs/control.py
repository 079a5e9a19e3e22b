"""How running work learns that it should stop, or finish early."""

from __future__ import annotations

import threading

from SAMFineTuneLib.errors import Cancelled
from SAMFineTuneLib.jobs.folder import JobFolder


class Control:
    """The user's requests to stop, to be checked between steps; cheap enough for every step."""

    def __init__(self, folder: JobFolder | None = None) -> None:
        self._folder = folder
        self._cancel = threading.Event()
        self._finish = threading.Event()

    def request_cancel(self) -> None:
        """Ask the work to stop without a result."""
        self._cancel.set()

    def request_finish(self) -> None:
        """Ask the work to stop early and keep the best model so far."""
        self._finish.set()

    def cancelled(self) -> bool:
        """Whether the work is to stop without a result."""
        if self._folder is not None and self._folder.cancel_file.exists():
            self._cancel.set()
        return self._cancel.is_set()

    def finish_requested(self) -> bool:
        """Whether the work is to stop early and keep the best model so far."""
        if self._folder is not None and self._folder.finish_file.exists():
            self._finish.set()
        return self._finish.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise an exception if the work is to stop without a result.

        Raises:
            Cancelled: the user asked to stop.
        """
        if self.cancelled():
            raise Cancelled("cancelled")
