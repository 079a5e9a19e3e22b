"""What a client needs of a worker's process, whichever program started it.

The shell starts workers by `SubprocessTransport`, Slicer by one of Qt's processes. Both clients,
`jobs.client.JobClient` and `interactive.client.Conversation`, know this protocol alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Receiver(Protocol):
    """Who is given what a process writes, and its end."""

    def take_output(self, line: str) -> None:
        """Receive a line of standard output, without its end."""

    def take_error(self, line: str) -> None:
        """Receive a line of standard error, without its end."""

    def take_end(self, returned: int, reason: str) -> None:
        """The process has gone, and its last line was handed over.

        Args:
            returned: its exit code; negative, the signal that killed it.
            reason: why it could not be started; "" where it was.
        """


class Transport(Protocol):
    """A process of the worker with its lines of input and output."""

    def start(self, receiver: Receiver) -> None:
        """Start a new process, which takes the place of an earlier one; returns at once.

        Of the earlier one nothing is handed over any more.
        """

    def write(self, line: str) -> None:
        """Write a line, whose end is added, on its standard input; nothing where it has gone."""

    def note_children(self) -> None:
        """Remember the processes that it has started: they outlive one that is killed."""

    def kill(self) -> None:
        """End the process now, with all that it started and all that was remembered."""

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after a time, unless the process has gone by then."""
