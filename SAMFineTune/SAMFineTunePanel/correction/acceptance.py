"""Accepting masks: they are written into the segment, as one step of the history."""

from __future__ import annotations

from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction_session import CorrectionSession
from SAMFineTunePanel.segment_editing.proposed_mask import ProposedMask, packed
from SAMFineTunePanel.segment_editing.segment_edit import SegmentEdit, editsText, redoAll, undoAll
from SAMFineTunePanel.segment_editing.segment_editor import SegmentEditor
from SAMFineTunePanel.texts.counted_text import counted
from SAMFineTunePanel.texts.slices_text import slicesText


class Acceptance:
    """Accepts the mask of the current slice, or all masks that were propagated.

    Args:
        session: whose masks they are.

    Attributes:
        edits: what the last accept changed.
    """

    def __init__(self, session: CorrectionSession) -> None:
        self.edits: list[SegmentEdit] = []
        self._session = session
        # A slice that is to be accepted as soon as its mask is there, and in which editor.
        self._awaited: int | None = None
        self._awaitedIn: SegmentEditor | None = None

    @property
    def isAwaited(self) -> bool:
        """Whether a slice is to be accepted as soon as its mask is there."""
        return self._awaited is not None

    def accept(self, editor: SegmentEditor | None) -> None:
        """Accept now, or as soon as the mask is there; see `Correction.accept`."""
        self._session.requireReady()
        slices, number = self._session.slices, self._session.currentSlice.number
        if number is None and not slices.propagated:
            raise ValueError(self._session.currentSlice.problem())
        if slices.isSought(number):
            self._awaited, self._awaitedIn = number, editor
            self._session.status.report(_("Accepted as soon as the mask is there."))
            return
        self._acceptNow(number, editor)

    def acceptPainted(self) -> None:
        """Take every slice on which the segment has voxels for right; see `Correction.acceptPainted`."""
        self._session.requireReady()
        segment = self._session.segment
        painted = [number for number in range(segment.count) if segment.mask(number).any()]
        if not painted:
            raise ValueError(_("Segment {name} has no voxels to carry on.").format(name=segment.name))
        self._session.slices.accepted |= set(painted)

    def acceptFound(self, number: int) -> None:
        """The mask of a slice was found: accept it if that was asked for, and report where it cannot be."""
        if self._awaited != number:
            return
        self._awaited = None
        try:
            self._session.requireReady()
            self._acceptNow(number, self._awaitedIn)
        except ValueError as error:
            self._session.status.reportProblem(str(error))

    def withdraw(self) -> None:
        """The mask that is to be accepted will not be found."""
        self._awaited = None

    def withdrawUnlessSought(self, number: int) -> None:
        """The prompts of a slice have changed: without prompts no mask is looked for that could be accepted."""
        if self._awaited == number and not self._session.slices.isSought(number):
            self._awaited = None
            self._session.status.report("")

    def forget(self) -> None:
        """The session is over."""
        self.edits = []

    def _acceptNow(self, number: int | None, editor: SegmentEditor | None) -> None:
        slices = self._session.slices
        if number is None or slices.propagated:
            masks = slices.proposed(number)
        else:
            masks = {number: slices.at(number).proposed or self._held(number)}
        step = _AcceptedMasks(self._session, masks)
        edits = self.edits = self._session.segment.write(masks, editor)
        step.record(edits)
        changed = sum(edit.changedVoxels for edit in edits)
        text = counted(
            changed,
            _("Accepted {what}: 1 voxel changed."),
            _("Accepted {what}: {count} voxels changed."),
            what=slicesText(sorted(masks)),
        )
        self._session.status.report(f"{text} {editsText(edits)}".strip())

    def _held(self, number: int) -> ProposedMask:
        """What the segment holds on a slice, as a mask that changes nothing."""
        mask = self._session.segment.mask(number)
        if not mask.any():
            raise ValueError(_("There is no mask to accept: set a point on the structure, or draw a box around it."))
        return ProposedMask(mask, packed(mask))


class _AcceptedMasks:
    """A step of the history: masks that are written, and the prompts and propagated masks that led to them."""

    def __init__(self, session: CorrectionSession, masks: dict[int, ProposedMask]) -> None:
        self._session = session
        self._numbers = sorted(masks)
        self._edits: list[SegmentEdit] = []
        self._works = session.slices.begun(masks)
        self._propagated = session.slices.propagated
        self._accepted = set(session.slices.accepted)

    def record(self, edits: list[SegmentEdit]) -> None:
        """The masks were written by these edits: nothing is proposed any more, and the step can be undone."""
        self._edits = edits
        self._clearSlices()
        text = _("accepting of {what}").format(what=slicesText(self._numbers))
        self._session.history.add(text, self._undo, self._redo)

    def _undo(self) -> None:
        undoAll(self._edits)
        slices = self._session.slices
        slices.propagated, slices.accepted = self._propagated, set(self._accepted)
        slices.restore(self._works)
        if self._session.currentSlice.number not in self._numbers:
            self._session.look(self._numbers[0])
        self._session.status.notifyMasks()

    def _redo(self) -> None:
        redoAll(self._edits)
        self._clearSlices()

    def _clearSlices(self) -> None:
        slices = self._session.slices
        slices.propagated = {}
        slices.accepted = self._accepted | set(self._numbers)
        slices.drop(self._works)
        self._session.status.notifyMasks()
