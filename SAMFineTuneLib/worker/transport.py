"""The interface between a client and a worker's process, whichever program started it.

The shell starts workers with `SubprocessTransport`, Slicer with a QProcess. Both clients,
`jobs.client.JobClient` and `interactive.client.CorrectionClient`, use only this protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Receiver(Protocol):
    """Receives the lines that a process writes, and is told of its end."""

    def take_output(self, line: str) -> None:
        """Receive a line of standard output, without its end."""

    def take_error(self, line: str) -> None:
        """Receive a line of standard error, without its end."""

    def take_end(self, returned: int, reason: str) -> None:
        """The process has ended, and its last line was handed over.

        Args:
            returned: its exit code; a negative one is the signal that killed it.
            reason: why it could not be started; "" if it was started.
        """


class Transport(Protocol):
    """A worker's process, with its lines of input and output."""

    def start(self, receiver: Receiver) -> None:
        """Start a new process, which replaces an earlier one; returns at once.

        Nothing more is handed over from the earlier one.
        """

    def write(self, line: str) -> None:
        """Write a line on its standard input; the line end is added.

        Does nothing if the process has ended.
        """

    def note_children(self) -> None:
        """Remember the processes that it has started, because they may outlive it."""

    def kill(self) -> None:
        """End the process now, with all processes that it started or that were remembered."""

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after a time, unless the process has ended by then."""
