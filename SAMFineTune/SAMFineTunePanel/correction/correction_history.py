"""What was done while correcting, step by step: a prompt, an accepted mask, propagated masks; back and forth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from slicer.i18n import tr as _

_STEPS = 200


@dataclass(frozen=True)
class Step:
    """Something that was done.

    Attributes:
        text: what, for a tool tip: "point on slice 12".
        undo: takes it back; raises ValueError, in words, where it cannot, with nothing changed.
        redo: does it again; raises as `undo`.
    """

    text: str
    undo: Callable[[], None]
    redo: Callable[[], None]


class CorrectionHistory:
    """The steps, oldest first; the oldest are forgotten beyond a number of them."""

    def __init__(self, limit: int = _STEPS) -> None:
        self._limit = limit
        self._done: list[Step] = []
        self._undone: list[Step] = []
        self._isReplaying = False

    @property
    def isReplaying(self) -> bool:
        """Whether a step is being taken back or done again; what happens meanwhile is no step of its own."""
        return self._isReplaying

    @property
    def undoText(self) -> str:
        """What `undo` would take back; "" for nothing."""
        return self._done[-1].text if self._done else ""

    @property
    def redoText(self) -> str:
        """What `redo` would do again; "" for nothing."""
        return self._undone[-1].text if self._undone else ""

    def canUndo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._done)

    def canRedo(self) -> bool:
        """Whether there is a step to do again."""
        return bool(self._undone)

    def add(self, text: str, undo: Callable[[], None], redo: Callable[[], None]) -> None:
        """A step was just done; what had been taken back before cannot be done again.

        Raises:
            RuntimeError: from within a step that is being replayed; ask `isReplaying`.
        """
        if self._isReplaying:
            raise RuntimeError("a step cannot be added while another one is taken back or done again")
        self._done.append(Step(text, undo, redo))
        del self._done[: -self._limit]
        self._undone.clear()

    def undo(self) -> str:
        """Take the last step back; its text.

        Raises:
            ValueError: there is none, or it cannot be taken back; all steps stay.
        """
        if not self._done:
            raise ValueError(_("There is nothing to undo."))
        with self._replaying():
            self._done[-1].undo()
        self._undone.append(self._done.pop())
        return self._undone[-1].text

    def redo(self) -> str:
        """Do the step that was taken back last again; its text.

        Raises:
            ValueError: there is none, or it cannot be done again; all steps stay.
        """
        if not self._undone:
            raise ValueError(_("There is nothing to redo."))
        with self._replaying():
            self._undone[-1].redo()
        self._done.append(self._undone.pop())
        return self._done[-1].text

    def forget(self) -> None:
        """Drop all steps, when the session that they belong to is over."""
        self._done.clear()
        self._undone.clear()

    @contextmanager
    def _replaying(self) -> Iterator[None]:
        self._isReplaying = True
        try:
            yield
        finally:
            self._isReplaying = False
