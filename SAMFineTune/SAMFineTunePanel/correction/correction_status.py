"""What a correction reports to whoever shows it: events, what was done last, and what went wrong last."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from SAMFineTunePanel.texts.error_text import errorText

if TYPE_CHECKING:
    from SAMFineTuneLib.interactive.protocol import Failure
    from SAMFineTunePanel.correction.correction import Correction

Listener = Callable[["Correction", str], None]


class CorrectionStatus:
    """Keeps the last sentence for the user and calls listeners at every change.

    Args:
        correction: with which listeners are called, as `listener(correction, event)`.

    Attributes:
        text: what happened last, for the user.
        problem: what went wrong last; "" when nothing did.
    """

    def __init__(self, correction: Correction) -> None:
        self.text = self.problem = ""
        self._correction = correction
        self._listeners: list[Listener] = []

    def addListener(self, listener: Listener) -> None:
        """Call `listener` at every change."""
        self._listeners.append(listener)

    def removeListener(self, listener: Listener) -> None:
        """Call `listener` no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def report(self, text: str) -> None:
        """Something was done; a problem that was reported before is of the past."""
        self.text, self.problem = text, ""
        self.notify("status")

    def reportProblem(self, problem: str) -> None:
        """Something could not be done; what was done last stays reported beside it."""
        self.problem = problem
        self.notify("status")

    def reportFailure(self, failure: Failure) -> None:
        """The worker could not do what it was asked for."""
        self.reportProblem(errorText(failure.message, failure.remedy, failure.code, failure.facts))

    def notifyMasks(self) -> None:
        """Prompts and masks have changed."""
        self.notify("prompts")
        self.notify("mask")

    def notify(self, event: str) -> None:
        """Call the listeners with one of the events that `Correction` names."""
        for listener in list(self._listeners):
            try:
                listener(self._correction, event)
            # A listener at fault must not stop the correction: its fault goes where Slicer shows faults.
            except Exception:
                sys.excepthook(*sys.exc_info())
