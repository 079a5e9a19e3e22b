"""Giving, moving and deleting prompts of slices; each change is a step of the history."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from SAMFineTunePanel.correction.acceptance import Acceptance
from SAMFineTunePanel.correction.correction_session import READY, CorrectionSession
from SAMFineTunePanel.correction.slice_correction import Prompts, SliceCorrection, promptText, withPrompt
from SAMFineTunePanel.correction.slice_corrections import requireStart
from SAMFineTunePanel.segment_editing.corrected_segment import Ras

if TYPE_CHECKING:
    from SAMFineTuneLib.interactive.protocol import Box, Point


class PromptEditing:
    """Changes the prompts of slices, and has the masks for them found.

    The errors of its methods are described at those of `Correction`.

    Args:
        session: to which the slices belong.
        acceptance: which may wait for the mask of a slice whose prompts change.
    """

    def __init__(self, session: CorrectionSession, acceptance: Acceptance) -> None:
        self._session = session
        self._acceptance = acceptance

    def addPoint(self, ras: Ras, positive: bool, number: int | None) -> None:
        """Add a point to the slice on which it lies."""
        from SAMFineTuneLib.interactive.protocol import Point

        self._session.requireReady()
        segment = self._session.segment
        place = segment.placeOf(ras)
        number = self._session.currentSlice.sliceOf(place, number)
        self._add(number, Point(at=segment.onSlice(place, number), positive=positive))

    def addBox(self, rasA: Ras, rasB: Ras, number: int | None) -> None:
        """Add a box between two opposite corners to the slice on which the first lies."""
        from SAMFineTuneLib.interactive.protocol import Box

        self._session.requireReady()
        segment, current = self._session.segment, self._session.currentSlice
        first, second = segment.placeOf(rasA), segment.placeOf(rasB)
        number = current.sliceOf(first, number)
        if not current.hasViews:
            current.sliceOf(second, number)
        corners = segment.onSlice(first, number), segment.onSlice(second, number)
        segment.requireArea(*corners)
        self._add(number, Box(corners=corners))

    def requireInView(self, ras: Ras) -> None:
        """Refuse a point at which no prompt can be given."""
        self._session.requireReady()
        self._session.currentSlice.sliceOf(self._session.segment.placeOf(ras), None)

    def move(self, index: int, ras: Ras, corner: int, isGoingOn: bool) -> None:
        """Move a prompt of the current slice, or a corner of it."""
        self._session.requireReady()
        segment, number = self._session.segment, self._currentNumber()
        work = self._session.slices.at(number)
        prompt = _promptAt(work, index)
        place = segment.onSlice(segment.placeOf(ras), number)
        if prompt.kind == "box":
            corners = (place, prompt.corners[1]) if corner == 0 else (prompt.corners[0], place)
            segment.requireArea(*corners)
            moved: Point | Box = prompt.model_copy(update={"corners": corners})
        else:
            moved = prompt.model_copy(update={"at": place})
        changed = (*work.prompts[:index], moved, *work.prompts[index + 1 :])
        if isGoingOn:
            self._put(number, work.withPrompts(changed))
            return
        self._change(number, changed, _("move of a {prompt}").format(prompt=promptText(prompt)))

    def delete(self, index: int) -> None:
        """Delete a prompt of the current slice."""
        self._session.requireReady()
        number = self._currentNumber()
        work = self._session.slices.at(number)
        text = _("deletion of a {prompt}").format(prompt=promptText(_promptAt(work, index)))
        self._change(number, (*work.prompts[:index], *work.prompts[index + 1 :]), text)

    def clear(self) -> None:
        """Delete all prompts of the current slice."""
        self._change(self._currentNumber(), (), _("clearing of the prompts"))

    def startFrom(self, start: str) -> None:
        """Have prompts start from another mask, from now on and on the current slice."""
        requireStart(start)
        slices, number = self._session.slices, self._session.currentSlice.number
        slices.startChoice = start
        if self._session.state == READY and number is not None:
            self._put(number, replace(slices.at(number), start="", given=None, mask=None, isFound=False))

    def _currentNumber(self) -> int:
        number = self._session.currentSlice.number
        if number is None:
            raise ValueError(_noPromptText())
        return number

    def _add(self, number: int, prompt: Point | Box) -> None:
        self._session.currentSlice.take(number)
        text = _("{prompt} on slice {number}").format(prompt=promptText(prompt), number=number)
        self._change(number, withPrompt(self._session.slices.at(number).prompts, prompt), text)

    def _change(self, number: int, prompts: Prompts, text: str) -> None:
        before = self._session.slices.at(number)
        self._put(number, before.withPrompts(prompts))

        def exchange() -> None:
            nonlocal before
            before = self._exchange(number, before)

        self._session.status.problem = ""
        self._session.history.add(text, exchange, exchange)

    def _exchange(self, number: int, other: SliceCorrection) -> SliceCorrection:
        """Put another state of a slice in place and show the slice; returns the state that was there."""
        was = self._session.slices.at(number)
        self._session.look(number)
        self._put(number, other)
        return was

    def _put(self, number: int, work: SliceCorrection) -> None:
        self._session.slices.put(number, work)
        self._acceptance.withdrawUnlessSought(number)
        self._session.status.notifyMasks()


def _noPromptText() -> str:
    return _("There is no such prompt on the slice in view.")


def _promptAt(work: SliceCorrection, index: int) -> Point | Box:
    if not 0 <= index < len(work.prompts):
        raise ValueError(_noPromptText())
    return work.prompts[index]
