"""Taking an apply back: the segmentation as it was before, or, where apply made it, none."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.scene_removal import removeNode
from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP
from SAMFineTunePanel.segment_editing.segment_editor import slicersEditor
from SAMFineTunePanel.segment_editing.segmentation_lattice import labelsOf

_STATES = 5


class _VoxelState:
    """The segments of a segmentation and their voxels at one moment.

    Slicer moves voxels about without changing them: when it saves a scene, segments come to share labelmaps.
    So where times of modification differ, the voxels themselves are compared, once for each change.
    """

    def __init__(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        segmentation = segmentationNode.GetSegmentation()
        self._held = {each: _checksum(segmentation.GetSegment(each)) for each in segmentation.GetSegmentIDs()}
        self._times = _times(segmentation)
        self._changed = ""

    def isStillThatOf(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> bool:
        """Whether no segment has come or gone and none has other voxels."""
        segmentation = segmentationNode.GetSegmentation()
        times = _times(segmentation)
        if times.keys() != self._times.keys():
            return False
        if times != self._times:
            # An edit is mostly followed by another one of the same segment: it is the first to be looked at.
            suspects = sorted(times, key=lambda each: each != self._changed)
            differing = (each for each in suspects if _checksum(segmentation.GetSegment(each)) != self._held[each])
            self._changed = next(differing, "")
            self._times = times
        return not self._changed


def _times(segmentation: slicer.vtkSegmentation) -> dict[str, tuple[int, int]]:
    """Segment → when its labelmap was last changed, and its label there."""
    times = {}
    for segmentID in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentID)
        image = segment.GetRepresentation(BINARY_LABELMAP)
        times[segmentID] = image.GetMTime() if image is not None else 0, segment.GetLabelValue()
    return times


def _checksum(segment: slicer.vtkSegment) -> bytes:
    """A checksum of which voxels a segment holds and where they lie, whatever labelmap holds them."""
    image = segment.GetRepresentation(BINARY_LABELMAP)
    found = hashlib.blake2b(digest_size=16)
    if image is None:
        return found.digest()
    labels, box = labelsOf(image)
    i, j, k = box.start
    # Plane by plane: a plane stays in the processor's cache.
    for number, plane in enumerate(labels):
        mask = plane == segment.GetLabelValue()
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        if len(rows):
            inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            found.update(np.array([k + number, j + rows[0], i + columns[0], *inside.shape], np.int64).data)
            found.update(np.packbits(inside).data)
            found.update(np.ascontiguousarray(box.matrix, dtype=float).data)
    return found.digest()


class _ItemStates:
    """The states of all items of a sequence of segmentations, whichever of them is shown."""

    def __init__(self, states: list[tuple[slicer.vtkMRMLSegmentationNode, _VoxelState]]) -> None:
        self._states = states

    def isStillThatOf(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> bool:
        """Whether no item has other voxels."""
        return all(state.isStillThatOf(item) for item, state in self._states)


@dataclass
class _Step:
    """One apply: whether it made the segmentation, what that was like afterwards, and IDs of nodes made beside it."""

    madeSegmentation: bool
    after: _VoxelState | _ItemStates | None = None
    beside: list[str] = field(default_factory=list)


class SegmentationUndo:
    """What each apply did to segmentations, so that it can be taken back."""

    def __init__(self) -> None:
        self._histories: dict[str, slicer.vtkSegmentationHistory] = {}
        self._steps: dict[str, list[_Step]] = {}

    def forget(self) -> None:
        """Drop everything, for another scene."""
        self._histories.clear()
        self._steps.clear()

    def noteMade(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """This segmentation is new: undoing takes it away."""
        self._steps[segmentationNode.GetID()] = [_Step(madeSegmentation=True)]

    def noteBefore(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """This segmentation is about to be changed: keep its state, here and in the Segment Editor."""
        history = self._histories.get(segmentationNode.GetID())
        if history is None:
            history = slicer.vtkSegmentationHistory()
            history.SetMaximumNumberOfStates(_STATES)
            history.SetSegmentation(segmentationNode.GetSegmentation())
            self._histories[segmentationNode.GetID()] = history
        history.SaveState()
        self._steps.setdefault(segmentationNode.GetID(), []).append(_Step(madeSegmentation=False))
        slicersEditor(segmentationNode).saveState()

    def noteBeside(self, segmentationNode: slicer.vtkMRMLSegmentationNode, node: slicer.vtkMRMLNode) -> None:
        """The last apply to this segmentation made this node too, such as a volume of uncertainty."""
        self._steps[segmentationNode.GetID()][-1].beside.append(node.GetID())

    def noteAfter(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """The last apply to this segmentation is complete."""
        self._steps[segmentationNode.GetID()][-1].after = _VoxelState(segmentationNode)

    def statesOf(
        self, items: Iterable[slicer.vtkMRMLSegmentationNode]
    ) -> Generator[None, None, list[tuple[slicer.vtkMRMLSegmentationNode, _VoxelState]]]:
        """How segmentations of a sequence are now, for `noteItems`; yields between them."""
        states = []
        for item in items:
            states.append((item, _VoxelState(item)))
            yield
        return states

    def noteItems(
        self,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        states: list[tuple[slicer.vtkMRMLSegmentationNode, _VoxelState]],
    ) -> None:
        """The last apply to the segmentation that shows a sequence is complete, with these items."""
        self._steps[segmentationNode.GetID()][-1].after = _ItemStates(states)

    def canUndo(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> bool:
        """Whether there is an apply to take back."""
        if segmentationNode is None or not slicer.mrmlScene.IsNodePresent(segmentationNode):
            return False
        steps = self._steps.get(segmentationNode.GetID())
        if not steps:
            return False
        after = steps[-1].after
        if after is not None and not after.isStillThatOf(segmentationNode):
            # Edited since: taking the apply back would take those edits along.
            return False
        history = self._histories.get(segmentationNode.GetID())
        return steps[-1].madeSegmentation or (history is not None and bool(history.IsRestorePreviousStateAvailable()))

    def undo(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """Take the last apply to this segmentation back.

        Raises:
            ValueError: there is none.
        """
        if not self.canUndo(segmentationNode):
            raise ValueError(_("There is no apply to take back, or the segmentation was edited since."))
        step = self._steps[segmentationNode.GetID()].pop()
        for nodeID in step.beside:
            removeNode(slicer.mrmlScene.GetNodeByID(nodeID))
        if step.madeSegmentation:
            removeNode(segmentationNode)
        else:
            self._histories[segmentationNode.GetID()].RestorePreviousState()
            # Only the last apply: once the scene is saved, Slicer's history takes the restored state for a new one.
            del self._steps[segmentationNode.GetID()]
