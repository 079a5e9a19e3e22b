"""A correction in the scene: prompts on slices, the masks found for them, and what of it is kept. No widgets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.corrected_segment import CorrectedSegment
from SAMFineTunePanel.correction_history import CorrectionHistory
from SAMFineTunePanel.correction_watch import CorrectionWatch
from SAMFineTunePanel.correction_worker import CorrectionWorker, endAllNow
from SAMFineTunePanel.error_words import errorWords
from SAMFineTunePanel.segment_edit import SegmentEdit
from SAMFineTunePanel.slice_correction import SliceCorrection, promptWords, withPrompt
from SAMFineTunePanel.slice_view import showSlice, sliceInView

CLOSED, OPENING, READY = "closed", "opening", "ready"
# Where prompts start from: the segment where it has voxels, else the model; or always one of these.
AUTO, SEGMENT, MODEL, NOTHING = "auto", "segment", "model", "nothing"
STARTS = (AUTO, SEGMENT, MODEL, NOTHING)

Ras = Iterable[float]


class Correction:
    """One session at a time; all waiting is the worker's, and news come through listeners.

    Listeners are called as `listener(correction, event)` with event "state" (opened, ready, closed), "slice"
    (another one is in view), "prompts", "mask" (of the slice in view, or carried on), "progress" (slices
    embedded) or "words". Slices are numbered from 0 along the volume's own voxel axis; RAS is the world's.

    Args:
        followsViews: whether the slice in view is worked on; without, that of the last prompt or `look`.

    Attributes:
        state: "closed", "opening" or "ready".
        words: what happened last, for the user.
        problem: what went wrong last; "" when nothing did.
        number: the slice that is worked on: the one in view.
        accepted: slices that the user said are right.
        carried: slice → mask carried on to it, to be accepted or cleared as a whole.
        embedded: how many slices of how many are ready for prompts.
        edits: what the last accept changed (SegmentEdit).
    """

    def __init__(self, followsViews: bool = True) -> None:
        self._followsViews = followsViews
        self.state = CLOSED
        self.words = self.problem = ""
        self.history = CorrectionHistory()
        self.number: int | None = None
        self.accepted: set[int] = set()
        self.carried: dict[int, np.ndarray] = {}
        self.embedded = (0, 0)
        self.edits: list[SegmentEdit] = []
        self._segment: CorrectedSegment | None = None
        self._model: Any = None
        self._settings: dict[str, Any] = {}
        self._startChoice = AUTO
        self._slices: dict[int, SliceCorrection] = {}
        self._worker: CorrectionWorker | None = None
        self._isCarrying = False
        self._acceptWhenFound = False
        self._shownAsDoubtful: set[int] = set()
        self._listeners: list[Callable[[Correction, str], None]] = []
        self._watch = CorrectionWatch(self._onNodesChanged, self._onViewMoved, self._onSceneClose)

    # What it is about

    @property
    def isOpen(self) -> bool:
        """Whether there is a session."""
        return self.state != CLOSED

    @property
    def segment(self) -> CorrectedSegment | None:
        """What is corrected; None while there is no session."""
        return self._segment

    @property
    def model(self) -> Any:
        """The tuned model at work; None where it is the backbone."""
        return self._model

    @property
    def label(self) -> int | None:
        """The segment's number in the tuned model; None where that does not find it."""
        if self.state != READY:
            return None
        name = self._segment.name
        labels = self._worker.ready.labels
        return next((number for number, each in labels.items() if each.strip() == name), None)

    @property
    def tunedForPrompts(self) -> bool:
        """Whether weights tuned for prompts answer."""
        return self.state == READY and self._worker.ready.tuned_for_prompts

    @property
    def isWorking(self) -> bool:
        """Whether a mask is being looked for, or masks carried on."""
        return self._isCarrying or self._acceptWhenFound or self._isSought(self.number)

    @property
    def isCarrying(self) -> bool:
        """Whether masks are being carried on to other slices."""
        return self._isCarrying

    @property
    def processID(self) -> int:
        """Of the worker; 0 when there is none."""
        return self._worker.processID if self._worker is not None else 0

    # The slice in view

    @property
    def current(self) -> SliceCorrection:
        """What was said of the slice in view, and its mask."""
        return self._at(self.number)

    @property
    def preview(self) -> dict[int, np.ndarray]:
        """Slice → mask that is not accepted yet, of the slice in view or as they were carried on."""
        if self.carried:
            return self.carried
        mask = self.current.mask
        return {} if mask is None else {self.number: mask}

    def addListener(self, listener: Callable[[Correction, str], None]) -> None:
        """Call `listener` at every change."""
        self._listeners.append(listener)

    def removeListener(self, listener: Callable[[Correction, str], None]) -> None:
        """Call `listener` no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    # Opening and closing

    def open(
        self,
        volume: slicer.vtkMRMLScalarVolumeNode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segmentID: str,
        model: Any = None,
        start: str = AUTO,
        orientation: str = "auto",
        **settings: Any,
    ) -> None:
        """Begin to correct a segment; returns at once, and "state" tells when prompts can be given.

        Args:
            volume: the image.
            segmentation: holds the segment.
            segmentID: of the segment.
            model: a tuned model, or its name; None or "" for the backbone as it is.
            start: where prompts start from: "segment", "model", "nothing", or "auto", which is the segment where
                the slice has voxels of it, else the model where it finds such a structure.
            orientation: of the slices; "auto" is the model's, or that of the thickest slices.
            settings: device, backbone, checkpoint.

        Raises:
            ValueError: something does not fit, in words.
            InputError: no such model, or no folder to work in.
        """
        segment = CorrectedSegment(volume, segmentation, segmentID)
        segment.require()
        _requireStart(start)
        model = _usableModel(model)
        chosen = _settings(model, orientation, settings)
        keeps = self._worker is not None and self._worker.isOpen and self._worker.isAbout(volume, chosen)
        self._leave(keepWorker=keeps)
        self._segment, self._model, self._settings = segment, model, chosen
        self._startChoice = start
        self._watch.follow(volume, segmentation)
        if keeps and self._worker.ready is not None:
            self._onReady(self._worker.ready)
            return
        if not keeps:
            try:
                self._startWorker()
            except BaseException:
                self._leave()
                raise
        self._setState(OPENING)
        self._say(_("Reading the volume and starting the network…"))

    def close(self, keepWorker: bool = False) -> None:
        """End the session. What was accepted stays; prompts and masks that were not are gone.

        Args:
            keepWorker: for another session on the same volume with the same model.
        """
        wasOpen = self.isOpen
        self._leave(keepWorker)
        if wasOpen:
            self._say("")
            self._notify("state")

    def endForClosing(self) -> None:
        """Slicer closes: nothing may stay behind."""
        self._leave()
        endAllNow()

    # Prompts

    def addPoint(self, ras: Ras, positive: bool = True, number: int | None = None) -> None:
        """The structure is at a point, or it is not.

        Args:
            ras: of the point.
            positive: whether it is.
            number: the slice that is meant, for scripts; None for the one in view, on which the point must lie.

        Raises:
            ValueError: the point is outside of the volume or on a slice that is not in view, in words.
        """
        from SAMFineTuneLib.correction.messages import Point

        self._requireReady()
        place = self._segment.placeOf(ras)
        number = self._requireSlice(place, number)
        self._add(number, Point(at=self._segment.onSlice(place, number), positive=positive))

    def addBox(self, rasA: Ras, rasB: Ras, number: int | None = None) -> None:
        """The structure lies between two opposite corners; an earlier box of the slice gives way.

        Raises:
            ValueError: as `addPoint`; or the box has no area.
        """
        from SAMFineTuneLib.correction.messages import Box

        self._requireReady()
        first, second = self._segment.placeOf(rasA), self._segment.placeOf(rasB)
        number = self._requireSlice(first, number)
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
        """Take all prompts of the slice in view away, or what was carried on and is not accepted."""
        self._requireReady()
        if self.carried:
            self._setCarried({}, _("clearing of what was carried on"))
        elif self.current.prompts:
            self._change(self.number, (), _("clearing of the prompts"))

    def startFrom(self, start: str) -> None:
        """Where prompts start from, from now on and on the slice in view; see `open`.

        Raises:
            ValueError: there is no such start.
        """
        _requireStart(start)
        self._startChoice = start
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

    def accept(self) -> None:
        """Write the mask of the slice in view, or all that was carried on, into the segment: one step.

        A mask that is still being looked for is accepted when it is there. A slice without prompts on which the
        segment has voxels is accepted as it is.

        Raises:
            ValueError: there is nothing to accept, or the Segment Editor's rules name what is gone.
        """
        self._requireReady()
        if self.carried:
            self._accept(dict(self.carried), {})
            return
        if self.number is None:
            raise ValueError(self._viewProblem())
        work = self.current
        if self._isSought(self.number):
            self._acceptWhenFound = True
            self._say(_("Accepted as soon as the mask is there."))
            return
        if work.mask is not None:
            self._accept({self.number: work.mask}, {self.number: work})
            return
        mask = self._segment.mask(self.number)
        if not mask.any():
            raise ValueError(_("There is no mask to accept: set a point on the structure, or draw a box around it."))
        self._accept({self.number: mask}, {})

    def acceptPainted(self) -> None:
        """Take every slice on which the segment has voxels for right.

        Raises:
            ValueError: there is none.
        """
        self._requireReady()
        painted = [number for number in range(self._segment.count) if self._segment.mask(number).any()]
        if not painted:
            raise ValueError(_("Segment {name} has no voxels to carry on.").format(name=self._segment.name))
        self.accepted.update(painted)

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
        from SAMFineTuneLib.correction.messages import CarryOn

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
        self._isCarrying = True
        self._say(_("Carrying on from {what}…").format(what=_sliceWords(accepted)))
        outward = self._segment.count if outward is None else outward
        question = CarryOn(id=0, accepted=tuple(accepted), label=self.label, outward=outward, between=between)
        self._worker.ask(question, self._onCarried, self._onNotCarried)

    def stop(self) -> None:
        """Break off what carries masks on."""
        if self._isCarrying:
            self._worker.stopCarryingOn()

    def nextUncertain(self) -> None:
        """Show the slice of which the tuned model is least certain, among those not accepted or shown so yet.

        Raises:
            ValueError: there is no tuned model.
        """
        from SAMFineTuneLib.correction.messages import RankSlices

        self._requireReady()
        if self._model is None:
            raise ValueError(_("Only a tuned model can tell of which slices it is uncertain. Choose one."))
        self._worker.ask(RankSlices(id=0, label=self.label), self._onRanked, self._onFailure)

    def look(self, number: int) -> None:
        """Work on a slice, and show it where there is a slice view.

        Raises:
            ValueError: there is no such slice.
        """
        if not 0 <= number < self._segment.count:
            raise ValueError(
                _("Volume {volume} has no {orientation} slice {number}.").format(
                    volume=self._segment.volume.GetName(), orientation=self._segment.orientation, number=number
                )
            )
        if self._hasViews:
            showSlice(self._segment.volume, self._segment.orientation, number)
        self._setNumber(number)

    # Prompts: the details

    def _add(self, number: int, prompt) -> None:
        self._setNumber(number)
        words = _("{prompt} on slice {number}").format(prompt=promptWords(prompt), number=number)
        self._change(number, withPrompt(self._at(number).prompts, prompt), words)

    def _change(self, number: int, prompts: tuple, words: str) -> None:
        before = self._at(number)
        self._put(number, before.withPrompts(prompts))

        def undo() -> None:
            nonlocal before
            before = self._exchange(number, before)

        self.problem = ""
        self.history.add(words, undo, undo)

    def _exchange(self, number: int, other: SliceCorrection) -> SliceCorrection:
        """Put another state of a slice in place and show the slice; the state that was there."""
        was = self._at(number)
        self.look(number)
        self._put(number, other)
        return was

    def _at(self, number: int | None) -> SliceCorrection:
        return self._slices.get(number, SliceCorrection()) if number is not None else SliceCorrection()

    def _put(self, number: int, work: SliceCorrection) -> None:
        if work.prompts and not work.start:
            start = self._startOf(number)
            given = self._segment.mask(number) if start == "given" else None
            work = replace(work, start=start, given=given)
        if work.prompts:
            self._slices[number] = work
        else:
            # There is nothing to correct: where to start from is decided anew.
            self._reset(number)
        self._notify("prompts")
        self._seek(number)

    def _reset(self, number: int) -> None:
        """Nothing was said of a slice; the model's own mask is shown where prompts would start from it."""
        self._slices.pop(number, None)
        if self._startOf(number) == "model":
            self._slices[number] = SliceCorrection(start="model")

    def _startOf(self, number: int) -> str:
        choice = self._startChoice
        finds = self.label is not None
        if choice == SEGMENT or (choice == AUTO and self._segment.mask(number).any()):
            return "given"
        return "model" if choice in (AUTO, MODEL) and finds else "nothing"

    def _isSought(self, number: int | None) -> bool:
        work = self._at(number)
        return (bool(work.prompts) or work.start == "model") and not work.isFound

    def _seek(self, number: int) -> None:
        """Have the mask of a slice looked for where it is not there."""
        from SAMFineTuneLib.correction.messages import FindMask

        work = self._at(number)
        if not self._isSought(number):
            self._worker.dropMasks(number)
            self._notify("mask")
            return
        if work.start == "given":
            self._worker.give(number, work.given)
        question = FindMask(id=0, slice=number, prompts=work.prompts, start=work.start, label=self.label)
        self._worker.ask(question, lambda answer: self._onFound(number, work, answer), self._onNotFound)

    def _onFound(self, number: int, sought: SliceCorrection, answer) -> None:
        if self._segment.problem():
            # The watch is about to close the session.
            return
        work = self._at(number)
        confidence = answer.confidence[0] if answer.confidence else None
        found = work.withMask(self._worker.found(number), confidence)
        # An answer to fewer prompts than there are by now is shown until the next one comes.
        isLatest = work.prompts == sought.prompts and work.start == sought.start
        self._slices[number] = found if isLatest else replace(found, isFound=False)
        if answer.words:
            self._say(answer.words)
        if number != self.number:
            return
        self._notify("mask")
        if isLatest and self._acceptWhenFound:
            self._acceptWhenFound = False
            try:
                self.accept()
            except ValueError as error:
                self._complain(str(error))

    def _onNotFound(self, failure) -> None:
        self._acceptWhenFound = False
        self._onFailure(failure)

    def _onFailure(self, failure) -> None:
        self._complain(errorWords(failure.message, failure.remedy, failure.code))

    def _promptAt(self, index: int):
        prompts = self.current.prompts
        if not 0 <= index < len(prompts):
            raise ValueError(_("There is no such prompt on the slice in view."))
        return prompts[index]

    # Keeping: the details

    def _accept(self, masks: dict[int, np.ndarray], works: dict[int, SliceCorrection]) -> None:
        edits = self.edits = self._segment.write(masks)
        carried, accepted = self.carried, set(self.accepted)
        self._acceptWhenFound = False

        def clear() -> None:
            self.carried = {}
            self.accepted = accepted | set(masks)
            for number in works:
                self._slices.pop(number, None)
                self._worker.dropMasks(number)
            self._notify("prompts")
            self._notify("mask")

        def undo() -> None:
            _allOrNone(edits, "undo")
            self.carried, self.accepted = carried, accepted
            self._slices |= works
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
        words = [_("Accepted {what}: {count} voxels changed.").format(what=_sliceWords(sorted(masks)), count=changed)]
        self._say(" ".join([*words, *(edit.words for edit in edits if edit.words)]))

    # Carrying on: the details

    def _onCarried(self, answer) -> None:
        self._isCarrying = False
        if self._segment.problem():
            return
        masks = {number: self._worker.found(number) for number in answer.slices}
        changed = {
            number: mask for number, mask in masks.items() if not np.array_equal(mask, self._segment.mask(number))
        }
        if not changed:
            self._say(" ".join([_("Carried on: nothing changes."), answer.words]).strip())
            return
        what = _sliceWords(sorted(changed))
        self._setCarried(changed, _("carrying on to {what}").format(what=what))
        words = _("Carried on to {what} ({count} changed); Accept keeps it, Clear drops it.").format(
            what=what, count=len(changed)
        )
        self._say(f"{words} {answer.words}".strip())

    def _onNotCarried(self, failure) -> None:
        self._isCarrying = False
        if failure.code == "stopped":
            self._say(_("Stopped; nothing was carried on."))
        else:
            self._onFailure(failure)

    def _setCarried(self, masks: dict[int, np.ndarray], words: str) -> None:
        before, self.carried = self.carried, masks

        def undo() -> None:
            nonlocal before
            before, self.carried = self.carried, before
            self._notify("mask")

        self.history.add(words, undo, undo)
        self._notify("mask")

    def _onRanked(self, answer) -> None:
        fresh = [each for each in answer.slices if each not in self.accepted and each not in self._shownAsDoubtful]
        if not fresh:
            self._shownAsDoubtful.clear()
            self._say(
                _("No other slice is left: all were shown or accepted. {words}").format(words=answer.words).strip()
            )
            return
        self._shownAsDoubtful.add(fresh[0])
        self.look(fresh[0])
        words = _("Slice {number}: here the model is least certain.").format(number=fresh[0])
        self._say(f"{words} {answer.words}".strip())

    # The slice in view: the details

    def _requireReady(self) -> None:
        if self.state == CLOSED:
            raise ValueError(_("No correction is open. Start one first."))
        if self.state == OPENING:
            raise ValueError(_("The correction is being opened; wait a moment."))
        problem = self._segment.problem()
        if problem:
            self._closeBecause(problem)
            raise ValueError(problem)

    def _requireSlice(self, place: np.ndarray, number: int | None) -> int:
        ofPlace = self._segment.numberOf(place)
        if number is not None:
            if not 0 <= number < self._segment.count:
                raise ValueError(_("There is no slice {number}.").format(number=number))
            return number
        if not self._hasViews:
            return ofPlace
        view = sliceInView(self._segment.volume, self._segment.orientation)
        if view.number is None:
            raise ValueError(view.problem)
        if view.number != ofPlace:
            raise ValueError(
                _(
                    "{orientation} slices are corrected, and view {view} shows slice {number} of them. Click there, "
                    "on the slice that is in view."
                ).format(orientation=self._segment.orientation.capitalize(), view=view.viewName, number=view.number)
            )
        return ofPlace

    @property
    def _hasViews(self) -> bool:
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode") if self._followsViews else []
        return any(node.IsMappedInLayout() for node in nodes)

    def _viewProblem(self) -> str:
        if self._hasViews:
            return sliceInView(self._segment.volume, self._segment.orientation).problem
        return _("Say which slice is meant first.")

    def _onViewMoved(self) -> None:
        if self.state != READY or not self._hasViews:
            return
        self._setNumber(sliceInView(self._segment.volume, self._segment.orientation).number)

    def _setNumber(self, number: int | None) -> None:
        if number == self.number:
            return
        self.number = number
        self._acceptWhenFound = False
        if number is not None:
            self._lookAt(number)
        self._notify("slice")

    def _lookAt(self, number: int) -> None:
        from SAMFineTuneLib.correction.messages import LookAt

        self._worker.ask(LookAt(id=0, slice=number), lambda answer: None, self._onFailure)
        if number not in self._slices:
            self._reset(number)
        if self._isSought(number):
            self._seek(number)

    # The worker

    def _startWorker(self) -> None:
        self._worker = CorrectionWorker(
            self._segment.volume, self._settings, self._onMessage, self._onRestart, self._onWorkerEnd
        )
        self._worker.open()

    def _onMessage(self, message) -> None:
        if message.type == "embedded":
            self.embedded = (message.done, message.slices)
            self._notify("progress")
        elif message.type == "log":
            if message.level in ("warning", "error"):
                self._say(message.message)
        elif self.isOpen:
            self._onReady(message)

    def _onReady(self, ready) -> None:
        self._segment = replace(self._segment, axis=2 - ready.array_axis)
        number, self.number = self.number, None
        if self.state != READY:
            self._setState(READY)
            self._say(_("Ready: click on the structure, or draw a box around it."))
        self._setNumber(number)
        self._onViewMoved()

    def _onRestart(self, words: str) -> None:
        self._say(_("{words}. It is started again; nothing is lost.").format(words=words))

    def _onWorkerEnd(self, words: str) -> None:
        self._closeBecause(words)

    # The scene

    def _onNodesChanged(self) -> None:
        """Something of the nodes has changed: what, is seen here."""
        if not self.isOpen:
            return
        problem = self._segment.problem()
        if not problem:
            try:
                stale = not self._worker.isAbout(self._segment.volume, self._settings)
            except ValueError as error:
                problem = str(error)
        if problem:
            self._closeBecause(problem)
        elif stale:
            self._reopen()
        else:
            self._notify("prompts")
            self._notify("mask")
            self._onViewMoved()

    def _reopen(self) -> None:
        """The volume has other voxels: read it anew, and find the masks of all prompts anew."""
        shapes = {work.given.shape for work in self._slices.values() if work.given is not None}
        self._worker.close()
        self._isCarrying = self._acceptWhenFound = False
        expected = tuple(np.delete(self._segment.grid.shape, 2 - self._segment.axis))
        if shapes - {expected}:
            self._closeBecause(_("The volume has another size now."))
            return
        self.carried = {}
        self.history.forget()
        self._slices = {
            number: replace(work, mask=None, isFound=False)
            for number, work in self._slices.items()
            if number < self._segment.count
        }
        try:
            self._startWorker()
        except Exception as error:
            self._closeBecause(str(error))
            raise
        self._setState(OPENING)
        self._say(_("The volume was changed: it is read anew, the prompts stay."))

    def _onSceneClose(self) -> None:
        self.close()

    def _closeBecause(self, words: str) -> None:
        self._leave()
        self.words, self.problem = "", _("The correction was closed. {words}").format(words=words)
        self._notify("words")
        self._notify("state")

    def _leave(self, keepWorker: bool = False) -> None:
        self._watch.leave()
        if self._worker is not None:
            if keepWorker:
                self._worker.dropMasks()
                self._worker.stopCarryingOn()
            else:
                self._worker.close()
                self._worker = None
        self.state = CLOSED
        self.number = None
        self._slices.clear()
        self.history.forget()
        self._shownAsDoubtful.clear()
        self.accepted, self.carried, self.embedded = set(), {}, (0, 0)
        self.edits = []
        self._isCarrying = self._acceptWhenFound = False
        self._segment = self._model = None
        self.problem = ""

    # Telling

    def _setState(self, state: str) -> None:
        self.state = state
        self._notify("state")

    def _say(self, words: str) -> None:
        self.words, self.problem = words, ""
        self._notify("words")

    def _complain(self, problem: str) -> None:
        self.problem = problem
        self._notify("words")

    def _notify(self, event: str) -> None:
        for listener in list(self._listeners):
            try:
                listener(self, event)
            # A listener at fault must not stop the correction: its fault goes where Slicer shows faults.
            except Exception:
                sys.excepthook(*sys.exc_info())


def _requireStart(start: str) -> None:
    if start not in STARTS:
        raise ValueError(_("{start} is no start; known are {known}.").format(start=start, known=", ".join(STARTS)))


def _usableModel(model: Any) -> Any:
    """A tuned model that can be used; None for the backbone."""
    if not model:
        return None
    if isinstance(model, str):
        from SAMFineTuneLib.model_library import find_model

        model = find_model(model)
    if model.card is None:
        raise ValueError(model.fault)
    return model


def _settings(model: Any, orientation: str, settings: dict[str, Any]) -> dict[str, Any]:
    """As SessionSettings has them, without those left to the program."""
    chosen = {name: value for name, value in settings.items() if value and value != "auto"}
    if model is not None:
        chosen["model"] = str(model.path)
    if orientation != "auto":
        chosen["axis"] = orientation
    return chosen


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
