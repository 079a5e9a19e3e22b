"""Taking an apply back: the segmentation as it was before, or, where apply made it, none."""

from __future__ import annotations

from dataclasses import dataclass, field

import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.segment_editor import slicersEditor
from SAMFineTunePanel.segment_voxels import BINARY_LABELMAP

_STATES = 5


@dataclass
class _Step:
    """One apply: whether it made the segmentation, what that was like afterwards, and IDs of nodes made beside it."""

    madeSegmentation: bool
    after: tuple = ()
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
        self._steps[segmentationNode.GetID()][-1].after = _voxelState(segmentationNode)

    def canUndo(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> bool:
        """Whether there is an apply to take back."""
        steps = self._steps.get(segmentationNode.GetID()) if segmentationNode is not None else None
        if not steps:
            return False
        if steps[-1].after and steps[-1].after != _voxelState(segmentationNode):
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
            node = slicer.mrmlScene.GetNodeByID(nodeID)
            if node is not None:
                slicer.mrmlScene.RemoveNode(node)
        if step.madeSegmentation:
            slicer.mrmlScene.RemoveNode(segmentationNode)
        else:
            self._histories[segmentationNode.GetID()].RestorePreviousState()


def _voxelState(segmentationNode: slicer.vtkMRMLSegmentationNode) -> tuple:
    """Changes when segments come or go or their voxels change."""
    segmentation = segmentationNode.GetSegmentation()
    state = []
    for segmentID in segmentation.GetSegmentIDs():
        image = segmentation.GetSegment(segmentID).GetRepresentation(BINARY_LABELMAP)
        state.append((segmentID, image.GetMTime() if image is not None else 0))
    return tuple(state)
