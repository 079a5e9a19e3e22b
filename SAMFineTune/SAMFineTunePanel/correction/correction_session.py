"""What is open while a segment is corrected: segment, model, worker, slices and history; opened, closed, reopened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction_history import CorrectionHistory
from SAMFineTunePanel.correction.correction_status import CorrectionStatus
from SAMFineTunePanel.correction.correction_watch import CorrectionWatch
from SAMFineTunePanel.correction.correction_worker import CorrectionWorker, endAllNow
from SAMFineTunePanel.correction.current_slice import CurrentSlice
from SAMFineTunePanel.correction.no_session import NoSessionError
from SAMFineTunePanel.correction.slice_correction import SliceCorrection
from SAMFineTunePanel.correction.slice_corrections import SliceCorrections
from SAMFineTunePanel.examples.case_images import problemWithImages
from SAMFineTunePanel.scene.sequences import frameShown, isShownBeside, sequenceOf
from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment

if TYPE_CHECKING:
    from SAMFineTuneLib.interactive.protocol import Failure, Message, Ready
    from SAMFineTuneLib.models.library import TunedModel

CLOSED, OPENING, READY = "closed", "opening", "ready"


class CorrectionSession:
    """Holds what belongs to one correction, and keeps it in step with the scene and the worker.

    `Correction` is what users do with it. One object serves one session after the other, so that a worker that has
    read the volume can serve the next.

    Args:
        status: where it reports.
        followsViews: whether the slice in view is worked on; without, that of the last prompt or `look`.
        onFound: called with a slice, whether its mask belongs to all prompts given by now, and a text.
        onNotFound: called with the worker's Failure when a mask was not found.
        onInterrupted: called when what was asked of the worker will not be answered.
        onClosed: called when a session is over.

    Attributes:
        state: "closed", "opening" or "ready".
        model: the tuned model at work; None where it is the backbone.
        frame: index value of the item that a volume which shows a sequence showed when this began; "" for others.
        channels: the further images of the case, beside the volume.
        slices: prompts and masks of the slices.
        history: the steps to take back and to do again.
        currentSlice: the slice that is worked on.
        embedded: how many slices of how many are ready for prompts.
    """

    def __init__(
        self,
        status: CorrectionStatus,
        followsViews: bool,
        onFound: Callable[[int, bool, str], None],
        onNotFound: Callable[[Failure], None],
        onInterrupted: Callable[[], None],
        onClosed: Callable[[], None],
    ) -> None:
        self.status = status
        self.state = CLOSED
        self.model: TunedModel | None = None
        self._openSegment: CorrectedSegment | None = None
        self._openWorker: CorrectionWorker | None = None
        self.slices = SliceCorrections(onFound, onNotFound)
        self.history = CorrectionHistory()
        self.currentSlice = CurrentSlice(followsViews, self._onSliceChanged)
        self.embedded = (0, 0)
        self._onInterrupted, self._onClosed = onInterrupted, onClosed
        self.frame = ""
        self.channels: tuple[slicer.vtkMRMLScalarVolumeNode, ...] = ()
        self._settings: dict[str, Any] = {}
        self._watch = CorrectionWatch(self._onNodesChanged, self._onViewMoved, self.close)

    @property
    def isOpen(self) -> bool:
        """Whether a segment is being corrected."""
        return self.state != CLOSED

    @property
    def segment(self) -> CorrectedSegment:
        """What is corrected.

        Raises:
            NoSessionError: no session is open.
        """
        if self._openSegment is None:
            raise NoSessionError
        return self._openSegment

    @property
    def worker(self) -> CorrectionWorker:
        """Finds masks.

        Raises:
            NoSessionError: no session is open.
        """
        if self._openWorker is None:
            raise NoSessionError
        return self._openWorker

    @property
    def isSingleSlice(self) -> bool:
        """Whether there is no slice beside the one that is corrected, as in a picture."""
        return self._openWorker is not None and self._openWorker.shape[2 - self.segment.axis] == 1

    @property
    def number(self) -> int | None:
        """The slice that is worked on: the one in view; None while no view shows one."""
        return self.currentSlice.number

    @property
    def current(self) -> SliceCorrection:
        """Prompts and mask of the slice that is worked on."""
        return self.slices.at(self.number)

    @property
    def preview(self) -> dict[int, np.ndarray]:
        """Slice → mask that is not accepted yet: of the slice in view, and as they were propagated and corrected."""
        return {number: each.mask for number, each in self.slices.proposed(self.number).items()}

    @property
    def propagated(self) -> dict[int, np.ndarray]:
        """Slice → mask propagated to it, to be corrected, and to be accepted or cleared as a whole."""
        return {number: each.mask for number, each in self.slices.propagated.items()}

    @property
    def accepted(self) -> set[int]:
        """Slices that the user accepted."""
        return set(self.slices.accepted)

    @property
    def label(self) -> int | None:
        """The segment's number in the tuned model; None where that does not find it."""
        return self.slices.label if self.state == READY else None

    @property
    def processID(self) -> int:
        """The worker's process ID; 0 when there is none."""
        return self._openWorker.processID if self._openWorker is not None else 0

    # Opening and closing

    def open(
        self,
        segment: CorrectedSegment,
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode],
        model: TunedModel | None,
        start: str,
        settings: dict[str, Any],
    ) -> None:
        """Begin to correct a segment; returns at once, and the event "state" follows when prompts can be given.

        Args:
            segment: one that can be corrected.
            channels: the further images of the case, in the order of the model.
            model: a tuned model that can be used; None for the backbone as it is.
            start: where prompts start from, one of `slice_corrections.STARTS`.
            settings: as `workerSettings` makes them.

        Raises:
            InputError: no folder to work in.
        """
        kept = self._openWorker
        if kept is not None and not kept.canGoOnWith(segment.volume, channels, settings):
            kept = None
        self._leave(keepWorker=kept is not None)
        self._openSegment, self.channels, self.model, self._settings = segment, tuple(channels), model, settings
        self.slices.startChoice = start
        self.frame = frameShown(segment.volume)
        self._watch.follow((segment.volume, *channels), segment.segmentation)
        if kept is not None and kept.ready is not None:
            self._onReady(kept.ready)
            return
        if kept is None:
            try:
                self._startWorker()
            except BaseException:
                self._leave()
                raise
        self._setState(OPENING)
        self.status.report(_("Reading the volume and starting the network…"))

    def close(self, keepWorker: bool = False) -> None:
        """End the session; see `Correction.close`."""
        wasOpen = self.isOpen
        self._leave(keepWorker)
        if wasOpen:
            self.status.report("")
            self.status.notify("state")

    def endForClosing(self) -> None:
        """Slicer closes: nothing may stay behind."""
        self._leave()
        endAllNow()

    def requireReady(self) -> None:
        """Refuse what cannot be done at present.

        Raises:
            ValueError: no session is open, it is not ready yet, what it is about was removed, which closes it, or
                another frame is shown, on which it begins anew.
        """
        if self.state == CLOSED:
            raise NoSessionError
        if self.state == OPENING:
            raise ValueError(_("The correction is being opened; wait a moment."))
        problem = self._problem()
        if problem:
            self._closeBecause(problem)
            raise ValueError(problem)
        if self._showsAnotherFrame():
            self._beginAnew()
            raise ValueError(self.status.problem or self.status.text)

    def look(self, number: int) -> None:
        """Work on a slice, and show it where there is a slice view.

        Raises:
            ValueError: there is no such slice, or no session that is ready.
        """
        self.requireReady()
        self.currentSlice.show(number)

    def _setState(self, state: str) -> None:
        self.state = state
        self.status.notify("state")

    def _closeBecause(self, reason: str) -> None:
        self._leave()
        self.status.text, self.status.problem = "", _("The correction was closed. {words}").format(words=reason)
        self.status.notify("status")
        self.status.notify("state")

    def _leave(self, keepWorker: bool = False) -> None:
        self._watch.leave()
        if self._openWorker is not None:
            if keepWorker:
                self._openWorker.dropMasks()
                self._openWorker.stopPropagation()
            else:
                self._openWorker.close()
                self._openWorker = None
        self.state = CLOSED
        self.embedded = (0, 0)
        self.currentSlice.forget()
        self.slices.forget()
        self.history.forget()
        self._openSegment = self.model = None
        self.channels, self.frame = (), ""
        self.status.problem = ""
        self._onInterrupted()
        self._onClosed()

    # The worker

    def _startWorker(self) -> None:
        self._openWorker = CorrectionWorker(
            self.segment.volume, self.channels, self._settings, self._onMessage, self._onRestart, self._closeBecause
        )
        self._openWorker.open()

    def _onMessage(self, message: Message) -> None:
        if message.type == "embedded":
            self.embedded = (message.done, message.slices)
            self.status.notify("progress")
        elif message.type == "log":
            if message.level in ("warning", "error"):
                self.status.report(message.message)
        elif message.type == "ready" and self.isOpen:
            self._onReady(message)

    def _onReady(self, ready: Ready) -> None:
        segment = self._openSegment = replace(self.segment, axis=2 - ready.array_axis)
        self.slices.begin(segment, self.worker)
        number = self.currentSlice.begin(segment)
        if self.state != READY:
            self._setState(READY)
            self.status.report(_("Ready: click on the structure, or draw a box around it."))
        self.currentSlice.take(number)
        self._onViewMoved()
        if number is None and self.currentSlice.hasViews:
            # Views that lie across an oblique volume, or show another one, show no slice to click on.
            inView = self.currentSlice.number
            self.look(self.segment.count // 2 if inView is None else inView)

    def _onRestart(self, reason: str) -> None:
        self.status.report(_("{words}. It is started again; nothing is lost.").format(words=reason))

    # The scene

    def _onNodesChanged(self) -> None:
        """A node has changed; which, and how, is looked at here."""
        if not self.isOpen:
            return
        problem = self._problem()
        if problem:
            self._closeBecause(problem)
        elif self._showsAnotherFrame():
            self._beginAnew()
        elif not self.worker.isAbout(self.segment.volume, self.channels, self._settings):
            self._reopen()
        else:
            self.status.notifyMasks()
            self._onViewMoved()

    def _problem(self) -> str:
        """What was removed from the scene or cannot be followed any more, in words; "" when all is well."""
        return self.segment.problem() or problemWithImages(self.segment.volume, self.channels)

    def _showsAnotherFrame(self) -> bool:
        return frameShown(self.segment.volume) != self.frame

    def _beginAnew(self) -> None:
        """The volume shows another frame: prompts, masks and steps were those of the frame before."""
        segment, sequence = self.segment, sequenceOf(self.segment.volume)
        if sequence is not None and sequence.isPlayed:
            self._closeBecause(_("The sequence is being played. Stop it where you want to correct, then start again."))
            return
        own = CorrectedSegment(segment.volume, segment.segmentation, segment.segmentID)
        try:
            self.open(own, self.channels, self.model, self.slices.startChoice, self._settings)
        except Exception as error:
            self._closeBecause(str(error))
            raise
        if sequence is None:
            self.status.report(_("The volume shows no sequence any more: the correction begins anew."))
            return
        text = _("Frame {frame} is shown now: the correction begins anew on it.").format(
            frame=sequence.textOf(self.frame)
        )
        if not isShownBeside(segment.segmentation, sequence):
            text += " " + _("{name} is no sequence and stays the same on all frames.").format(
                name=segment.segmentation.GetName()
            )
        self.status.report(text)

    def _reopen(self) -> None:
        """The volume has other voxels: read it anew, and find the masks of all prompts anew."""
        self.worker.close()
        if self.worker.shape != self.segment.grid.shape:
            self._closeBecause(_("The volume has another size now."))
            return
        self._onInterrupted()
        self.history.forget()
        self.slices.forgetMasks()
        try:
            self._startWorker()
        except Exception as error:
            self._closeBecause(str(error))
            raise
        self._setState(OPENING)
        self.status.report(_("The volume was changed: it is read anew, the prompts stay."))

    def _onViewMoved(self) -> None:
        # `_onNodesChanged` is called for a problem too, a moment later.
        if self.state == READY and not self._problem():
            self.currentSlice.followView()

    def _onSliceChanged(self, number: int | None) -> None:
        from SAMFineTuneLib.interactive.protocol import LookAt

        if number is not None:
            self.worker.ask(LookAt(id=0, slice=number), lambda answer: None, self.status.reportFailure)
            self.slices.look(number)
        self.status.notify("slice")
