"""A correction in the scene: prompts on slices, the masks found for them, and what of it is kept. No widgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction_session import READY, CorrectionSession, Ras
from SAMFineTunePanel.correction.slice_correction import SliceCorrection, promptWords, withPrompt
from SAMFineTunePanel.correction.slice_corrections import requireStart
from SAMFineTunePanel.segment_editing.proposed_mask import ProposedMask, packed
from SAMFineTunePanel.segment_editing.segment_edit import SegmentEdit, wordsOf
from SAMFineTunePanel.segment_editing.segment_editor import SegmentEditor
from SAMFineTunePanel.texts.counted_text import counted
from SAMFineTunePanel.texts.error_text import asSentence


class Correction(CorrectionSession):
    """One session at a time; all waiting is the worker's, and news come through listeners.

    Listeners are called as `listener(correction, event)` with event "state" (opened, ready, closed), "slice"
    (another one is in view), "prompts", "mask" (of the slice in view, or carried on), "progress" (slices
    embedded) or "words". Slices are numbered from 0 along the volume's own voxel axis; RAS is the world's.

    Args:
        followsViews: whether the slice in view is worked on; without, that of the last prompt or `look`.

    Attributes:
        edits: what the last accept changed.
    """

    def __init__(self, followsViews: bool = True) -> None:
        super().__init__(followsViews)
        self.edits: list[SegmentEdit] = []
        self._isCarrying = False
        # A slice that is to be accepted as soon as its mask is there, and in which editor.
        self._toAccept: int | None = None
        self._toAcceptIn: SegmentEditor | None = None
        self._shownAsDoubtful: set[int] = set()

    @property
    def isWorking(self) -> bool:
        """Whether a mask is being looked for, or masks carried on."""
        return self._isCarrying or self._toAccept is not None or self._slices.isSought(self.number)

    @property
    def isCarrying(self) -> bool:
        """Whether masks are being carried on to other slices."""
        return self._isCarrying

    @property
    def accepted(self) -> set[int]:
        """Slices that the user said are right."""
        return set(self._slices.accepted)

    @property
    def carried(self) -> dict[int, np.ndarray]:
        """Slice → mask carried on to it, to be corrected, and to be accepted or cleared as a whole."""
        return {number: each.mask for number, each in self._slices.carried.items()}

    @property
    def current(self) -> SliceCorrection:
        """What was said of the slice in view, and its mask."""
        return self._slices.at(self.number)

    @property
    def preview(self) -> dict[int, np.ndarray]:
        """Slice → mask that is not accepted yet: of the slice in view, and as they were carried on and corrected."""
        return {number: each.mask for number, each in self._proposed.items()}

    @property
    def _proposed(self) -> dict[int, ProposedMask]:
        works = self._slices.withPrompts(self._slices.carried)
        if self.number is not None:
            works[self.number] = self.current
        return {**self._slices.carried} | {number: work.proposed for number, work in works.items() if work.proposed}

    # Prompts

    def addPoint(self, ras: Ras, positive: bool = True, number: int | None = None) -> None:
        """The structure is at a point, or it is not.

        Args:
            ras: of the point.
            positive: whether it is.
            number: the slice on which the point must lie, for scripts; None for the one in view.

        Raises:
            ValueError: the point is outside of the volume or on another slice, in words.
        """
        from SAMFineTuneLib.interactive.protocol import Point

        self._requireReady()
        place = self._segment.placeOf(ras)
        number = self._requireSlice(place, number)
        self._add(number, Point(at=self._segment.onSlice(place, number), positive=positive))

    def addBox(self, rasA: Ras, rasB: Ras, number: int | None = None) -> None:
        """The structure lies between two opposite corners; an earlier box of the slice gives way.

        Raises:
            ValueError: as `addPoint`; or the box has no area.
        """
        from SAMFineTuneLib.interactive.protocol import Box

        self._requireReady()
        first, second = self._segment.placeOf(rasA), self._segment.placeOf(rasB)
        number = self._requireSlice(first, number)
        if not self._hasViews:
            self._requireSlice(second, number)
        corners = tuple(self._segment.onSlice(each, number) for each in (first, second))
        self._segment.requireArea(*corners)
        self._add(number, Box(corners=corners))

    def requireInView(self, ras: Ras) -> None:
        """Refuse a point at which no prompt can be given.

        Raises:
            ValueError: as `addPoint`.
        """
        self._requireReady()
        self._requireSlice(self._segment.placeOf(ras), None)

    def movePrompt(self, index: int, ras: Ras, corner: int = 0, isGoingOn: bool = False) -> None:
        """Move a prompt of the slice in view; it stays on its slice.

        Args:
            index: among the prompts of the slice.
            ras: where to.
            corner: of a box, which.
            isGoingOn: it was moved just before, and undo takes both moves back as one.

        Raises:
            ValueError: out of the volume, or the box would lose its area; nothing is changed.
        """
        self._requireReady()
        prompt = self._promptAt(index)
        place = self._segment.onSlice(self._segment.placeOf(ras), self.number)
        if prompt.kind == "box":
            corners = list(prompt.corners)
            corners[corner] = place
            self._segment.requireArea(*corners)
            moved = prompt.model_copy(update={"corners": tuple(corners)})
        else:
            moved = prompt.model_copy(update={"at": place})
        prompts = self.current.prompts
        changed = (*prompts[:index], moved, *prompts[index + 1 :])
        if isGoingOn:
            self._put(self.number, self.current.withPrompts(changed))
            return
        self._change(self.number, changed, _("move of a {prompt}").format(prompt=promptWords(prompt)))

    def deletePrompt(self, index: int) -> None:
        """Take a prompt of the slice in view away.

        Raises:
            ValueError: there is none of this index.
        """
        self._requireReady()
        prompt = self._promptAt(index)
        prompts = self.current.prompts
        words = _("deletion of a {prompt}").format(prompt=promptWords(prompt))
        self._change(self.number, (*prompts[:index], *prompts[index + 1 :]), words)

    def clearPrompts(self) -> None:
        """Take all prompts of the slice in view away; where it has none, what was carried on."""
        self._requireReady()
        if self.current.prompts:
            self._change(self.number, (), _("clearing of the prompts"))
        elif self.carried:
            self._setCarried({}, _("clearing of what was carried on"))
            self._say(_("What was carried on is dropped."))

    def startFrom(self, start: str) -> None:
        """Where prompts start from, from now on and on the slice in view; see `open`.

        Raises:
            ValueError: there is no such start.
        """
        requireStart(start)
        self._slices.startChoice = start
        if self.state == READY and self.number is not None:
            self._put(self.number, replace(self.current, start="", given=None, mask=None, isFound=False))

    # Going back and forth

    def undo(self) -> None:
        """Take the last step back.

        Raises:
            ValueError: there is none, or the segment was edited since at the same place.
        """
        self._say(_("Undone: {step}.").format(step=self.history.undo()))

    def redo(self) -> None:
        """Do the step that was taken back last again.

        Raises:
            ValueError: as `undo`.
        """
        self._say(_("Done again: {step}.").format(step=self.history.redo()))

    # Keeping

    def accept(self, editor: SegmentEditor | None = None) -> None:
        """Write the mask of the slice in view, or all that was carried on, into the segment: one step.

        A mask that is still being looked for is accepted when it is there. A slice without prompts on which the
        segment has voxels is accepted as it is. What was painted since a mask was begun stays where the mask
        changes nothing.

        Args:
            editor: the Segment Editor whose rules hold and whose undo takes it back too; None for Slicer's module.

        Raises:
            ValueError: there is nothing to accept, or the Segment Editor's rules name what is gone.
        """
        self._requireReady()
        if self.number is None and not self.carried:
            raise ValueError(self._viewProblem())
        if self._slices.isSought(self.number):
            self._toAccept, self._toAcceptIn = self.number, editor
            self._say(_("Accepted as soon as the mask is there."))
            return
        self._acceptNow(self.number, editor)

    def acceptPainted(self) -> None:
        """Take every slice on which the segment has voxels for right.

        Raises:
            ValueError: there is none.
        """
        self._requireReady()
        painted = [number for number in range(self._segment.count) if self._segment.mask(number).any()]
        if not painted:
            raise ValueError(_("Segment {name} has no voxels to carry on.").format(name=self._segment.name))
        self._slices.accepted |= set(painted)

    # Carrying on

    def propagate(self, slices: int | None = None) -> None:
        """Carry what is accepted on to the slices beyond; shown before it is accepted.

        Args:
            slices: how many to go beyond the first and the last accepted slice at most; None as far as the
                structure goes.

        Raises:
            ValueError: nothing is accepted yet.
        """
        if slices is not None and slices < 1:
            raise ValueError(_("Propagate to at least one slice."))
        self.carryOn(slices, between=False)

    def fillBetween(self) -> None:
        """Fill the slices between accepted ones; shown before it is accepted.

        Raises:
            ValueError: fewer than two slices are accepted, or nothing lies between them.
        """
        self._requireReady()
        if len(self.accepted) < 2 or max(self.accepted) - min(self.accepted) < len(self.accepted):
            raise ValueError(_("Accept two slices with others between them first."))
        self.carryOn(0, between=True)

    def carryOn(self, outward: int | None, between: bool) -> None:
        """Carry what is accepted on; shown before it is accepted.

        Args:
            outward: as `slices` of `propagate`, or 0 for none.
            between: whether to fill what lies between accepted slices.

        Raises:
            ValueError: nothing is accepted yet, or something carried on is not accepted yet.
        """
        from SAMFineTuneLib.interactive.protocol import CarryOn

        self._requireReady()
        if self._isCarrying:
            raise ValueError(_("Masks are being carried on already. Stop it first."))
        if self.carried:
            raise ValueError(_("Accept or clear what was carried on first."))
        if not self.accepted:
            raise ValueError(_("Accept a slice first: what is accepted is carried on."))
        accepted = sorted(self.accepted)
        for number in accepted:
            self._worker.give(number, self._segment.mask(number))
        outward = self._segment.count if outward is None else outward
        # Read now: what is painted while masks are carried on is not theirs to change.
        reach = range(max(0, accepted[0] - outward), min(self._segment.count, accepted[-1] + outward + 1))
        bases = {number: packed(self._segment.mask(number)) for number in reach}
        self._isCarrying = True
        self._say(_("Carrying on from {what}…").format(what=_sliceWords(accepted)))
        question = CarryOn(id=0, accepted=tuple(accepted), label=self.label, outward=outward, between=between)
        self._worker.ask(question, lambda answer: self._onCarried(answer, bases), self._onNotCarried)

    def stop(self) -> None:
        """Break off what carries masks on."""
        if self._isCarrying:
            self._worker.stopCarryingOn()

    def nextUncertain(self) -> None:
        """Show the slice of which the tuned model is least certain, among those not accepted or shown so yet.

        Raises:
            ValueError: there is no tuned model.
        """
        from SAMFineTuneLib.interactive.protocol import RankSlices

        self._requireReady()
        if self._model is None:
            raise ValueError(_("Only a tuned model can tell of which slices it is uncertain. Choose one."))
        self._worker.ask(RankSlices(id=0, label=self.label), self._onRanked, self._onFailure)

    # Prompts: the details

    def _add(self, number: int, prompt) -> None:
        self._setNumber(number)
        words = _("{prompt} on slice {number}").format(prompt=promptWords(prompt), number=number)
        self._change(number, withPrompt(self._slices.at(number).prompts, prompt), words)

    def _change(self, number: int, prompts: tuple, words: str) -> None:
        before = self._slices.at(number)
        self._put(number, before.withPrompts(prompts))

        def undo() -> None:
            nonlocal before
            before = self._exchange(number, before)

        self.problem = ""
        self.history.add(words, undo, undo)

    def _exchange(self, number: int, other: SliceCorrection) -> SliceCorrection:
        """Put another state of a slice in place and show the slice; the state that was there."""
        was = self._slices.at(number)
        self.look(number)
        self._put(number, other)
        return was

    def _put(self, number: int, work: SliceCorrection) -> None:
        self._slices.put(number, work)
        if self._toAccept == number and not self._slices.isSought(number):
            # What was to be accepted is not looked for any more, and the next mask is another one.
            self._toAccept = None
            self._say("")
        self._notify("prompts")
        self._notify("mask")

    def _onFound(self, number: int, isLatest: bool, words: str) -> None:
        if words:
            self._say(asSentence(words))
        if number in self.preview:
            self._notify("mask")
        if isLatest and self._toAccept == number:
            self._toAccept = None
            try:
                self._acceptNow(number, self._toAcceptIn)
            except ValueError as error:
                self._complain(str(error))

    def _onNotFound(self, failure) -> None:
        self._toAccept = None
        super()._onNotFound(failure)

    def _promptAt(self, index: int):
        prompts = self.current.prompts
        if not 0 <= index < len(prompts):
            raise ValueError(_("There is no such prompt on the slice in view."))
        return prompts[index]

    # Keeping: the details

    def _acceptNow(self, number: int | None, editor: SegmentEditor | None) -> None:
        if self.carried:
            self._accept(self._proposed, editor)
        else:
            self._accept({number: self._slices.at(number).proposed or self._held(number)}, editor)

    def _held(self, number: int) -> ProposedMask:
        """What the segment holds, for a mask that changes nothing."""
        mask = self._segment.mask(number)
        if not mask.any():
            raise ValueError(_("There is no mask to accept: set a point on the structure, or draw a box around it."))
        return ProposedMask(mask, packed(mask))

    def _accept(self, masks: dict[int, ProposedMask], editor: SegmentEditor | None) -> None:
        works = self._slices.said(masks)
        edits = self.edits = self._segment.write(masks, editor)
        carried, accepted = self._slices.carried, self.accepted

        def clear() -> None:
            self._slices.carried = {}
            self._slices.accepted = accepted | set(masks)
            self._slices.drop(works)
            self._notify("prompts")
            self._notify("mask")

        def undo() -> None:
            _allOrNone(edits, "undo")
            self._slices.carried, self._slices.accepted = carried, accepted
            self._slices.restore(works)
            if self.number not in masks:
                self.look(next(iter(sorted(masks))))
            self._notify("prompts")
            self._notify("mask")

        def redo() -> None:
            _allOrNone(list(reversed(edits)), "redo")
            clear()

        clear()
        self.history.add(_acceptWords(sorted(masks)), undo, redo)
        changed = sum(edit.changedVoxels for edit in edits)
        words = counted(
            changed,
            _("Accepted {what}: 1 voxel changed."),
            _("Accepted {what}: {count} voxels changed."),
            what=_sliceWords(sorted(masks)),
        )
        self._say(f"{words} {wordsOf(edits)}".strip())

    # Carrying on: the details

    def _onCarried(self, answer, bases: dict[int, np.ndarray]) -> None:
        self._isCarrying = False
        if self._segment.problem():
            return
        masks = {number: ProposedMask(self._worker.found(number), bases[number]) for number in answer.slices}
        changed = {number: each for number, each in masks.items() if each.changed.any()}
        if not changed:
            self._say(" ".join([_("Carried on: nothing changes."), asSentence(answer.words)]).strip())
            return
        what = _sliceWords(sorted(changed))
        self._setCarried(changed, _("carrying on to {what}").format(what=what))
        words = _("Carried on to {what}. Accept keeps it, Clear drops it.").format(what=what)
        self._say(f"{words} {asSentence(answer.words)}".strip())

    def _onNotCarried(self, failure) -> None:
        self._isCarrying = False
        if failure.code == "stopped":
            self._say(_("Stopped; nothing was carried on."))
        else:
            self._onFailure(failure)

    def _setCarried(self, masks: Mapping[int, ProposedMask], words: str) -> None:
        before, self._slices.carried = self._slices.carried, masks

        def undo() -> None:
            nonlocal before
            before, self._slices.carried = self._slices.carried, before
            self._notify("mask")

        self.history.add(words, undo, undo)
        self._notify("mask")

    def _onRanked(self, answer) -> None:
        fresh = [each for each in answer.slices if each not in self.accepted and each not in self._shownAsDoubtful]
        if not fresh:
            self._shownAsDoubtful.clear()
            self._say(
                _("No other slice is left: all were shown or accepted. {words}")
                .format(words=asSentence(answer.words))
                .strip()
            )
            return
        self._shownAsDoubtful.add(fresh[0])
        self.look(fresh[0])
        words = _("Slice {number}: here the model is least certain.").format(number=fresh[0])
        self._say(f"{words} {asSentence(answer.words)}".strip())

    def _dropWork(self) -> None:
        self._isCarrying = False
        self._toAccept = None
        self._slices.carried = {}

    def _leave(self, keepWorker: bool = False) -> None:
        super()._leave(keepWorker)
        self.edits = []
        self._shownAsDoubtful.clear()


def _allOrNone(edits: list, deed: str) -> None:
    """Undo (the last first) or redo edits; when one cannot, none is."""
    problemWith = {"undo": "problemWithUndo", "redo": "problemWithRedo"}[deed]
    for edit in edits:
        problem = getattr(edit, problemWith)()
        if problem:
            raise ValueError(problem)
    for edit in reversed(edits):
        getattr(edit, deed)()


def _sliceWords(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return _("slice {number}").format(number=numbers[0])
    return _("{count} slices from {first} to {last}").format(count=len(numbers), first=numbers[0], last=numbers[-1])


def _acceptWords(numbers: list[int]) -> str:
    return _("accepting of {what}").format(what=_sliceWords(numbers))
