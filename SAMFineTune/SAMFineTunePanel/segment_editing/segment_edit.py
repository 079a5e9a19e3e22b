"""An edit of a segment that can be carried out, undone and redone, alone or with others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from SAMFineTunePanel.segment_editing.segment_writing import addVoxels, removeVoxels
from SAMFineTunePanel.segment_editing.segmentation_lattice import (
    LatticeBox,
    labelmapLattice,
    segmentIn,
)
from SAMFineTunePanel.texts.counted_text import counted


@dataclass(frozen=True, eq=False)
class SegmentChange:
    """What one segment gains or loses; eight voxels a byte, for many of them are kept.

    Attributes:
        segmentID: of the segment.
        name: of it, at that time.
        box: the smallest around all that changes.
        gain: packed bits of (k, j, i).
        loss: as `gain`.
    """

    segmentID: str
    name: str
    box: LatticeBox
    gain: np.ndarray
    loss: np.ndarray

    @classmethod
    def of(
        cls,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        segmentID: str,
        box: LatticeBox,
        gained: np.ndarray,
        lost: np.ndarray,
    ) -> SegmentChange:
        smallest, inside = box.around(gained | lost)
        name = segmentationNode.GetSegmentation().GetSegment(segmentID).GetName()
        return cls(segmentID, name, smallest, np.packbits(gained[inside]), np.packbits(lost[inside]))

    @property
    def gained(self) -> np.ndarray:
        """(k, j, i), bool."""
        return self._unpacked(self.gain)

    @property
    def lost(self) -> np.ndarray:
        """(k, j, i), bool."""
        return self._unpacked(self.loss)

    def _unpacked(self, bits: np.ndarray) -> np.ndarray:
        count = int(np.prod(self.box.shape))
        return np.unpackbits(bits, count=count).astype(bool).reshape(self.box.shape)


class SegmentEdit:
    """A change of a segment, and of others that gave way; can be taken back and done again.

    Attributes:
        keptByMasking: how many voxels should have changed, but the Segment Editor's masking did not allow it.
        isDone: False once it is taken back.
    """

    def __init__(
        self, segmentationNode: slicer.vtkMRMLSegmentationNode, changes: list[SegmentChange], keptByMasking: int
    ) -> None:
        self.keptByMasking = keptByMasking
        self.isDone = False
        self._changes = changes
        # Weak: the history of corrections must not keep a segmentation that the user has deleted.
        self._segmentation = vtk.vtkWeakReference()
        self._segmentation.Set(segmentationNode)

    @property
    def changedVoxels(self) -> int:
        """How many voxels the segment has gained or lost."""
        return sum(int(each.gained.sum() + each.lost.sum()) for each in self._changes[:1])

    @property
    def lostVoxels(self) -> dict[str, int]:
        """Name of another segment → how many voxels it lost to this one."""
        losses: dict[str, int] = {}
        for each in self._changes[1:]:
            losses[each.name] = losses.get(each.name, 0) + int(each.lost.sum())
        return losses

    @property
    def text(self) -> str:
        """What the user should know of it; see `editsText`."""
        return editsText([self])

    def canUndo(self) -> bool:
        """Whether it is done and can be taken back."""
        return not self.problemWithUndo()

    def canRedo(self) -> bool:
        """Whether it is taken back and can be done again."""
        return not self.problemWithRedo()

    def problemWithUndo(self) -> str:
        """Why it cannot be taken back, in words; "" when it can."""
        return self._problem() if self.isDone else _("The correction is taken back already.")

    def problemWithRedo(self) -> str:
        """Why it cannot be done again, in words; "" when it can."""
        return _("The correction is done already.") if self.isDone else self._problem()

    def undo(self) -> None:
        """Give all segments the voxels that they had before.

        Raises:
            ValueError: as `problemWithUndo` says.
        """
        problem = self.problemWithUndo()
        if problem:
            raise ValueError(problem)
        self.carryOut()

    def redo(self) -> None:
        """Do it again.

        Raises:
            ValueError: as `problemWithRedo` says.
        """
        problem = self.problemWithRedo()
        if problem:
            raise ValueError(problem)
        self.carryOut()

    def _problem(self) -> str:
        node = self._segmentation.Get()
        if node is None or node.GetScene() is None:
            return _("The segmentation has been removed from the scene.")
        if self._changes and node.GetSegmentation().GetSegment(self._changes[0].segmentID) is None:
            return _("Segment {name} has been removed.").format(name=self._changes[0].name)
        for change in self._present(node):
            lattice = labelmapLattice(node, change.segmentID)
            if lattice is not None and not np.array_equal(lattice, change.box.matrix):
                return _("{name} has other voxels since: the geometry was changed.").format(name=change.name)
            held = segmentIn(node, change.segmentID, change.box)
            should, shouldNot = (change.gained, change.lost) if self.isDone else (change.lost, change.gained)
            if held[shouldNot].any() or not held[should].all():
                return _("{name} was edited since at the same place.").format(name=change.name)
        return ""

    def _present(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> list[SegmentChange]:
        """Without segments that gave way and were deleted since: nothing can be given back to them."""
        segmentation = segmentationNode.GetSegmentation()
        return [change for change in self._changes if segmentation.GetSegment(change.segmentID) is not None]

    def carryOut(self) -> None:
        """Change the voxels, from not done to done or back, without asking whether it still fits."""
        node = self._segmentation.Get()
        changes = self._present(node)
        # What is taken away comes first: then no segment lies where another one is to get voxels.
        for change in changes:
            removeVoxels(node, change.segmentID, change.box, change.gained if self.isDone else change.lost)
        for change in changes:
            addVoxels(node, change.segmentID, change.box, change.lost if self.isDone else change.gained)
        self.isDone = not self.isDone


def editsText(edits: Iterable[SegmentEdit]) -> str:
    """What the user should know of edits: other segments' losses, and what masking kept; "" for nothing."""
    losses: Counter[str] = Counter()
    kept = 0
    for edit in edits:
        losses.update(edit.lostVoxels)
        kept += edit.keptByMasking
    lines = []
    if losses:
        each = [
            counted(count, _("{name} 1 voxel"), _("{name} {count} voxels"), name=name) for name, count in losses.items()
        ]
        lines.append(_("Taken from other segments: {losses}.").format(losses=", ".join(each)))
    if kept:
        lines.append(
            counted(
                kept,
                _("Masking in the Segment Editor kept 1 voxel as it was."),
                _("Masking in the Segment Editor kept {count} voxels as they were."),
            )
        )
    return " ".join(lines)


def carryOutAll(edits: list[SegmentEdit], saveState: Callable[[], None]) -> None:
    """Do edits that were planned, all or none of them, as one step of an editor's undo.

    Args:
        edits: of different voxels.
        saveState: called before anything changes, where anything does.

    Raises:
        ValueError: Slicer refused.
    """
    if any(edit.changedVoxels for edit in edits):
        saveState()
    try:
        for edit in edits:
            edit.carryOut()
    except ValueError:
        for edit in reversed([each for each in edits if each.isDone]):
            edit.undo()
        raise


def undoAll(edits: Sequence[SegmentEdit]) -> None:
    """Undo edits that were carried out in this order: all or none of them.

    Raises:
        ValueError: one of them cannot be undone, as its `problemWithUndo` says.
    """
    _refuse(edit.problemWithUndo() for edit in edits)
    for edit in reversed(edits):
        edit.undo()


def redoAll(edits: Sequence[SegmentEdit]) -> None:
    """Redo edits that `undoAll` has undone: all or none of them.

    Raises:
        ValueError: one of them cannot be redone, as its `problemWithRedo` says.
    """
    _refuse(edit.problemWithRedo() for edit in edits)
    for edit in edits:
        edit.redo()


def _refuse(problems: Iterable[str]) -> None:
    problem = next(filter(None, problems), "")
    if problem:
        raise ValueError(problem)
