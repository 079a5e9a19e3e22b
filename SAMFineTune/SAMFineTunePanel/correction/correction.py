"""Correcting a segment in the scene: the commands that the panel, the Segment Editor's effect and scripts give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.correction.acceptance import Acceptance
from SAMFineTunePanel.correction.correction_session import CorrectionSession
from SAMFineTunePanel.correction.correction_status import CorrectionStatus, Listener
from SAMFineTunePanel.correction.prompt_editing import PromptEditing
from SAMFineTunePanel.correction.propagation import Propagation
from SAMFineTunePanel.correction.slice_corrections import AUTO, requireStart
from SAMFineTunePanel.correction.uncertain_slices import UncertainSlices
from SAMFineTunePanel.correction.worker_settings import imagesOf, usableModel, workerSettings
from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment, Ras
from SAMFineTunePanel.segment_editing.segment_edit import SegmentEdit
from SAMFineTunePanel.segment_editing.segment_editor import SegmentEditor
from SAMFineTunePanel.texts.error_text import asSentence

if TYPE_CHECKING:
    from SAMFineTuneLib.interactive.protocol import Failure
    from SAMFineTuneLib.models.library import TunedModel


class Correction:
    """Prompts are given on slices, masks are found for them, and accepted, propagated, undone. No widgets.

    One session is open at a time. Nothing here waits: the worker finds masks, and listeners are called when there
    is something new, as `listener(correction, event)` with event "state" (opened, ready, closed), "slice" (another
    one is in view), "prompts", "mask" (of the slice in view, or propagated), "progress" (slices embedded) or
    "status" (a text or a problem). Slices are numbered from 0 along the volume's own voxel axis; RAS is the world's.

    Args:
        followsViews: whether the slice in view is worked on; without, that of the last prompt or `look`.

    Attributes:
        session: what is open and what belongs to it, to be read.
        status: the last text and the last problem, for the user.
    """

    def __init__(self, followsViews: bool = True) -> None:
        self.status = CorrectionStatus(self)
        self.session = CorrectionSession(
            self.status, followsViews, self._onFound, self._onNotFound, self._onInterrupted, self._onClosed
        )
        self._acceptance = Acceptance(self.session)
        self._prompts = PromptEditing(self.session, self._acceptance)
        self._propagation = Propagation(self.session)
        self._uncertainSlices = UncertainSlices(self.session)

    def addListener(self, listener: Listener) -> None:
        """Call `listener` at every change."""
        self.status.addListener(listener)

    def removeListener(self, listener: Listener) -> None:
        """Call `listener` no more."""
        self.status.removeListener(listener)

    def report(self, text: str) -> None:
        """Have listeners show what was done with the correction from outside."""
        self.status.report(text)

    @property
    def isWorking(self) -> bool:
        """Whether a mask is being looked for, or masks propagated."""
        isSought = self.session.slices.isSought(self.session.number)
        return isSought or self._acceptance.isAwaited or self._propagation.isRunning

    @property
    def isPropagating(self) -> bool:
        """Whether masks are being propagated to other slices."""
        return self._propagation.isRunning

    @property
    def edits(self) -> list[SegmentEdit]:
        """What the last accept changed."""
        return self._acceptance.edits

    # Opening and closing

    def open(
        self,
        volume: slicer.vtkMRMLScalarVolumeNode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segmentID: str,
        model: TunedModel | str | None = None,
        start: str = AUTO,
        orientation: str = "auto",
        channels: Sequence[slicer.vtkMRMLScalarVolumeNode] | None = None,
        **settings: Any,
    ) -> None:
        """Begin to correct a segment; returns at once, and the event "state" follows when prompts can be given.

        Args:
            volume: the image.
            segmentation: holds the segment.
            segmentID: of the segment.
            model: a tuned model, or its name; None or "" for the backbone as it is.
            start: where prompts start from: "segment", "model", "nothing", or "auto", which is the segment where
                the slice has voxels of it, else the model where it finds such a structure.
            orientation: of the slices; "auto" is the model's, or that of the thickest slices.
            channels: the further images of the same case, for a model that takes several; None takes those of an
                example of the volume, those chosen for an apply to it, or those whose names say so.
            settings: device, backbone, checkpoint.

        Raises:
            ValueError: something does not fit, in words.
            InputError: no such model, or no folder to work in.
        """
        segment = CorrectedSegment(volume, segmentation, segmentID)
        segment.require()
        requireStart(start)
        usable = usableModel(model)
        images = imagesOf(usable, volume, channels)
        self.session.open(segment, images, usable, start, workerSettings(usable, orientation, settings))

    def close(self, keepWorker: bool = False) -> None:
        """End the session. What was accepted stays; prompts and masks that were not are gone.

        Args:
            keepWorker: for another session on the same volume with the same model.
        """
        self.session.close(keepWorker)

    def endForClosing(self) -> None:
        """Slicer closes: nothing may stay behind."""
        self.session.endForClosing()

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
        self._prompts.addPoint(ras, positive, number)

    def addBox(self, rasA: Ras, rasB: Ras, number: int | None = None) -> None:
        """The structure lies between two opposite corners; an earlier box of the slice gives way.

        Raises:
            ValueError: as `addPoint`; or the box has no area.
        """
        self._prompts.addBox(rasA, rasB, number)

    def requireInView(self, ras: Ras) -> None:
        """Refuse a point at which no prompt can be given.

        Raises:
            ValueError: as `addPoint`.
        """
        self._prompts.requireInView(ras)

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
        self._prompts.move(index, ras, corner, isGoingOn)

    def deletePrompt(self, index: int) -> None:
        """Delete a prompt of the slice in view.

        Raises:
            ValueError: there is none of this index.
        """
        self._prompts.delete(index)

    def clearPrompts(self) -> None:
        """Delete all prompts of the slice in view; where it has none, drop the propagated masks."""
        self.session.requireReady()
        if self.session.current.prompts:
            self._prompts.clear()
        else:
            self._propagation.clear()

    def startFrom(self, start: str) -> None:
        """Choose the mask that prompts start from, from now on and on the slice in view; see `open`.

        Raises:
            ValueError: there is no such start.
        """
        self._prompts.startFrom(start)

    # Accepting

    def accept(self, editor: SegmentEditor | None = None) -> None:
        """Write the mask of the slice in view, or all propagated masks, into the segment: one step.

        A mask that is still being looked for is accepted when it is there. A slice without prompts on which the
        segment has voxels is accepted as it is. What was painted since a mask was begun stays where the mask
        changes nothing.

        Args:
            editor: the Segment Editor whose masking holds and whose undo takes it back too; None for Slicer's module.

        Raises:
            ValueError: there is nothing to accept, or the Segment Editor's masking names what is gone.
        """
        self._acceptance.accept(editor)

    def acceptPainted(self) -> None:
        """Take every slice on which the segment has voxels for right.

        Raises:
            ValueError: there is none.
        """
        self._acceptance.acceptPainted()

    # Propagating

    def propagate(self, slices: int | None = None) -> None:
        """Propagate accepted masks to the slices beyond; shown before they are accepted.

        Args:
            slices: how many to go beyond the first and the last accepted slice at most; None as far as the
                structure goes.

        Raises:
            ValueError: nothing is accepted yet.
        """
        self._propagation.outward(slices)

    def fillBetween(self) -> None:
        """Fill the slices between accepted ones; shown before it is accepted.

        Raises:
            ValueError: fewer than two slices are accepted, or nothing lies between them.
        """
        self._propagation.between()

    def startPropagation(self, outward: int | None, between: bool) -> None:
        """Propagate accepted masks in both ways; shown before they are accepted.

        Args:
            outward: as `slices` of `propagate`, or 0 for none.
            between: whether to fill what lies between accepted slices.

        Raises:
            ValueError: nothing is accepted yet, or propagated masks are not accepted yet.
        """
        self._propagation.start(outward, between)

    def stop(self) -> None:
        """Break the propagation off."""
        self._propagation.stop()

    # Steps and slices

    def undo(self) -> None:
        """Take the last step back.

        Raises:
            ValueError: there is none, or the segment was edited since at the same place.
        """
        self.report(_("Undone: {step}.").format(step=self.session.history.undo()))

    def redo(self) -> None:
        """Do the step that was undone last again.

        Raises:
            ValueError: as `undo`.
        """
        self.report(_("Done again: {step}.").format(step=self.session.history.redo()))

    def look(self, number: int) -> None:
        """Work on a slice, and show it where there is a slice view.

        Raises:
            ValueError: there is no such slice, or no session that is ready.
        """
        self.session.look(number)

    def nextUncertain(self) -> None:
        """Show the slice of which the tuned model is least certain, among those not accepted or shown so yet.

        Raises:
            ValueError: there is no tuned model.
        """
        self._uncertainSlices.showNext()

    # Called by the session

    def _onFound(self, number: int, isLatest: bool, text: str) -> None:
        if text:
            self.report(asSentence(text))
        if number in self.session.preview:
            self.status.notify("mask")
        if isLatest:
            self._acceptance.acceptFound(number)

    def _onNotFound(self, failure: Failure) -> None:
        self._acceptance.withdraw()
        self.status.reportFailure(failure)

    def _onInterrupted(self) -> None:
        self._acceptance.withdraw()
        self._propagation.forget()

    def _onClosed(self) -> None:
        self._acceptance.forget()
        self._uncertainSlices.forget()
