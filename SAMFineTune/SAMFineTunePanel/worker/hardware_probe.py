"""What the worker can compute on, asked in a process of its own because torch has to be loaded for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from SAMFineTunePanel.worker.qprocess_transport import QProcessTransport


class HardwareProbe:
    """Asks once in a session of Slicer; later callers get the same answer."""

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None
        self.hasFailed = False
        # Kept after its end: a sender must not be deleted by what it calls.
        self._transport = QProcessTransport(lambda program: [str(program), "-m", "SAMFineTuneLib", "hardware"])
        self._lines: list[str] = []
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
        self._asking = True
        self._lines = []
        self._transport.start(self)

    def end(self) -> None:
        """Stop asking; for the moment at which Slicer closes."""
        if self._asking:
            self._asking = False
            self._callbacks = []
            self._transport.kill()
            self._transport.waitUntilEnded(1000)

    # What the transport hands over

    def take_output(self, line: str) -> None:
        """Receive a line of the answer."""
        self._lines.append(line)

    def take_error(self, line: str) -> None:
        """Receive a line of standard error, which tells nothing here."""

    def take_end(self, returned: int, reason: str) -> None:
        """The answer is whole, or there is none."""
        if not self._asking:
            return
        try:
            self.found = json.loads("\n".join(self._lines)) if returned == 0 else None
        except ValueError:
            self.found = None
        self._answer()

    def _answer(self) -> None:
        self._asking = False
        self.hasFailed = self.found is None
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self.found)
