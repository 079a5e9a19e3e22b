"""A correction session in the scene: what it is about, its worker, the slice in view; opened, closed, reopened."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction_history import CorrectionHistory
from SAMFineTunePanel.correction.correction_watch import CorrectionWatch
from SAMFineTunePanel.correction.correction_worker import CorrectionWorker, endAllNow
from SAMFineTunePanel.correction.slice_corrections import AUTO, SliceCorrections, requireStart
from SAMFineTunePanel.scene.slice_view import showSlice, sliceInView
from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment
from SAMFineTunePanel.texts.error_text import errorWords

CLOSED, OPENING, READY = "closed", "opening", "ready"

Ras = Iterable[float]


class CorrectionSession:
    """What lies under a correction; `Correction` says what is done in it.

    Args:
        followsViews: whether the slice in view is worked on; without, that of the last prompt or `look`.

    Attributes:
        state: "closed", "opening" or "ready".
        words: what happened last, for the user.
        problem: what went wrong last; "" when nothing did.
        history: the steps to take back and to do again.
        number: the slice that is worked on: the one in view; None while no view shows one.
        embedded: how many slices of how many are ready for prompts.
    """

    def __init__(self, followsViews: bool = True) -> None:
        self.state = CLOSED
        self.words = self.problem = ""
        self.history = CorrectionHistory()
        self.number: int | None = None
        self.embedded = (0, 0)
        self._followsViews = followsViews
        self._segment: CorrectedSegment | None = None
        self._model: Any = None
        self._settings: dict[str, Any] = {}
        self._worker: CorrectionWorker | None = None
        self._slices = SliceCorrections(self._onFound, self._onNotFound)
        self._listeners: list[Callable[[Any, str], None]] = []
        self._watch = CorrectionWatch(self._onNodesChanged, self._onViewMoved, self._onSceneClose)

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
        return self._slices.label if self.state == READY else None

    @property
    def tunedForPrompts(self) -> bool:
        """Whether weights tuned for prompts answer."""
        return self.state == READY and self._worker.ready.tuned_for_prompts

    @property
    def processID(self) -> int:
        """Of the worker; 0 when there is none."""
        return self._worker.processID if self._worker is not None else 0

    def addListener(self, listener: Callable[[Any, str], None]) -> None:
        """Call `listener` at every change."""
        self._listeners.append(listener)

    def removeListener(self, listener: Callable[[Any, str], None]) -> None:
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
        requireStart(start)
        model = _usableModel(model)
        chosen = _settings(model, orientation, settings)
        keeps = self._worker is not None and self._worker.canGoOnWith(volume, chosen)
        self._leave(keepWorker=keeps)
        self._segment, self._model, self._settings = segment, model, chosen
        self._slices.startChoice = start
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

    # The slice in view

    def look(self, number: int) -> None:
        """Work on a slice, and show it where there is a slice view.

        Raises:
            ValueError: there is no such slice, or no session that is ready.
        """
        self._requireReady()
        if not 0 <= number < self._segment.count:
            raise ValueError(
                _("Volume {volume} has no {orientation} slice {number}.").format(
                    volume=self._segment.volume.GetName(), orientation=self._segment.orientation, number=number
                )
            )
        if self._hasViews:
            showSlice(self._segment.volume, self._segment.orientation, number)
        self._setNumber(number)

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
            if ofPlace != number:
                raise ValueError(
                    _("The point lies on {orientation} slice {other}, not on slice {number}.").format(
                        orientation=self._segment.orientation, other=ofPlace, number=number
                    )
                )
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
        if self.state != READY or not self._hasViews or self._segment.problem():
            # Of a problem `_onNodesChanged` hears too, a moment later.
            return
        self._setNumber(sliceInView(self._segment.volume, self._segment.orientation).number)

    def _setNumber(self, number: int | None) -> None:
        if number == self.number:
            return
        self.number = number
        if number is not None:
            self._lookAt(number)
        self._notify("slice")

    def _lookAt(self, number: int) -> None:
        from SAMFineTuneLib.interactive.protocol import LookAt

        self._worker.ask(LookAt(id=0, slice=number), lambda answer: None, self._onFailure)
        self._slices.look(number)

    def _onFound(self, number: int, isLatest: bool, words: str) -> None:
        """A mask of a slice was found."""
        raise NotImplementedError

    def _onNotFound(self, failure) -> None:
        self._onFailure(failure)

    def _onFailure(self, failure) -> None:
        self._complain(errorWords(failure.message, failure.remedy, failure.code, failure.facts))

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
        self._slices.begin(self._segment, self._worker)
        number, self.number = self.number, None
        if self.state != READY:
            self._setState(READY)
            self._say(_("Ready: click on the structure, or draw a box around it."))
        self._setNumber(number)
        self._onViewMoved()
        if number is None and self._hasViews:
            # Views that lie across an oblique volume, or show another one, show no slice to click on.
            self.look(self._segment.count // 2 if self.number is None else self.number)

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
        if problem:
            self._closeBecause(problem)
        elif not self._worker.isAbout(self._segment.volume, self._settings):
            self._reopen()
        else:
            self._notify("prompts")
            self._notify("mask")
            self._onViewMoved()

    def _reopen(self) -> None:
        """The volume has other voxels: read it anew, and find the masks of all prompts anew."""
        self._worker.close()
        if self._worker.shape != self._segment.grid.shape:
            self._closeBecause(_("The volume has another size now."))
            return
        self._dropWork()
        self.history.forget()
        self._slices.forgetMasks()
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
        self.embedded = (0, 0)
        self._dropWork()
        self._slices.forget()
        self.history.forget()
        self._segment = self._model = None
        self.problem = ""

    def _dropWork(self) -> None:
        """Nobody waits any more for what was asked of the worker."""

    # Telling

    def _setState(self, state: str) -> None:
        self.state = state
        self._notify("state")

    def tell(self, words: str) -> None:
        """Have listeners show what was done with the correction from outside."""
        self._say(words)

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


def _usableModel(model: Any) -> Any:
    """A tuned model that can be used; None for the backbone."""
    if not model:
        return None
    if isinstance(model, str):
        from SAMFineTuneLib.models.library import find_model

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
