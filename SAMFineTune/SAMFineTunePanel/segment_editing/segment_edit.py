"""Writing a corrected mask into a segment: only what differs, only where it is allowed, to be taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP
from SAMFineTunePanel.scene.voxel_grid import gridOf, worldTransform
from SAMFineTunePanel.segment_editing.masking_settings import MaskingSettings
from SAMFineTunePanel.segment_editing.segment_writing import addVoxels, removeVoxels
from SAMFineTunePanel.segment_editing.segmentation_lattice import (
    LatticeBox,
    brought,
    labelmapLattice,
    latticeOf,
    segmentIn,
)
from SAMFineTunePanel.texts.counted_text import counted

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class _Change:
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
    def of(cls, segmentationNode, segmentID: str, box: LatticeBox, gained: np.ndarray, lost: np.ndarray) -> _Change:
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
        self, segmentationNode: slicer.vtkMRMLSegmentationNode, changes: list[_Change], keptByMasking: int
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

    def _present(self, segmentationNode) -> list[_Change]:
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


def plannedEdit(
    volumeNode: slicer.vtkMRMLScalarVolumeNode,
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentID: str,
    box: Box,
    mask: np.ndarray,
    where: np.ndarray,
    masking: MaskingSettings,
) -> SegmentEdit:
    """What makes a segment equal a mask in a part of a volume's grid; nothing else changes. It is not done yet.

    A segment on another lattice than the volume stays on its own: those of its voxels whose nearest voxel of the
    volume belongs to the part take what the mask says there.

    Args:
        volumeNode: on whose grid the mask lies.
        segmentationNode: of the segment.
        segmentID: of the segment.
        box: (k, j, i), first and behind the last voxel on the volume's grid.
        mask: (k, j, i), bool, of the size of the box.
        where: as `mask`; the part.
        masking: where it may change, and which other segments give way.

    Raises:
        ValueError: no such segment, a segmentation of surfaces, a box beyond the volume or of another size than
            the mask, masking settings that name what is gone, or as `gridOf` and `worldTransform`.
    """
    _requireVoxels(segmentationNode, segmentID)
    given = _boxOnGrid(volumeNode, segmentationNode, box, mask)
    lattice = latticeOf(segmentationNode, segmentID)
    own = given.on(given.matrix if lattice is None else lattice)
    held = segmentIn(segmentationNode, segmentID, own)
    differs = brought(where, given, own) & (brought(mask, given, own) != held)
    allowed = masking.allowed(segmentationNode, segmentID, own)
    changed = differs if allowed is None else differs & allowed
    changes = []
    if changed.any():
        gained = changed & ~held
        changes = [_Change.of(segmentationNode, segmentID, own, gained, changed & held)]
        changes += _losses(segmentationNode, masking.overwritten(segmentationNode, segmentID), own, gained)
    return SegmentEdit(segmentationNode, changes, int(differs.sum() - changed.sum()))


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


def _requireVoxels(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str) -> None:
    segmentation = segmentationNode.GetSegmentation()
    segment = segmentation.GetSegment(segmentID)
    if segment is None:
        raise ValueError(_("Segmentation {name} has lost the segment.").format(name=segmentationNode.GetName()))
    if segmentation.GetSourceRepresentationName() != BINARY_LABELMAP:
        raise ValueError(
            _(
                "{name} is not made of voxels but of surfaces. Make its binary labelmap the source representation "
                "first (module Segmentations)."
            ).format(name=segmentationNode.GetName())
        )
    if segment.GetRepresentation(BINARY_LABELMAP) is None:
        segment.AddRepresentation(BINARY_LABELMAP, slicer.vtkOrientedImageData())


def _boxOnGrid(volumeNode, segmentationNode, box: Box, mask: np.ndarray) -> LatticeBox:
    """The box in the segmentation's own coordinates."""
    grid = gridOf(volumeNode)
    inside = all(0 <= each.start < each.stop <= size for each, size in zip(box, grid.shape, strict=True))
    if not inside or mask.shape != tuple(each.stop - each.start for each in box):
        raise ValueError(
            _("The mask does not fit into volume {name}, which was changed meanwhile.").format(
                name=volumeNode.GetName()
            )
        )
    matrix = np.linalg.inv(worldTransform(segmentationNode)) @ grid.ijkToRas
    return LatticeBox(tuple(each.start for each in box[::-1]), mask.shape, matrix)


def _losses(segmentationNode, otherIDs: list[str], box: LatticeBox, gained: np.ndarray) -> list[_Change]:
    """What other segments lose where this one gains voxels."""
    smallest, inside = box.around(gained)
    changes = []
    for otherID in otherIDs:
        lattice = latticeOf(segmentationNode, otherID)
        own = smallest if lattice is None else smallest.on(lattice)
        lost = segmentIn(segmentationNode, otherID, own) & brought(gained[inside], smallest, own)
        if lost.any():
            changes.append(_Change.of(segmentationNode, otherID, own, np.zeros_like(lost), lost))
    return changes
