"""Taking an apply back: the segmentation as it was before, or, where apply made it, none."""

from __future__ import annotations

import slicer

_STATES = 5


class SegmentationUndo:
    """The states of segmentations before each apply."""

    def __init__(self) -> None:
        self._histories: dict[str, slicer.vtkSegmentationHistory] = {}
        self._made: dict[str, list[str]] = {}

    def forget(self) -> None:
        """Drop everything, for another scene."""
        self._histories.clear()
        self._made.clear()

    def noteMade(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """This segmentation is new: undoing takes it away."""
        self._made[segmentationNode.GetID()] = []

    def noteBefore(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """This segmentation is about to be changed: keep its state, here and in the Segment Editor."""
        history = self._histories.get(segmentationNode.GetID())
        if history is None:
            history = slicer.vtkSegmentationHistory()
            history.SetMaximumNumberOfStates(_STATES)
            history.SetSegmentation(segmentationNode.GetSegmentation())
            self._histories[segmentationNode.GetID()] = history
        history.SaveState()
        editor = _segmentEditorOn(segmentationNode)
        if editor is not None:
            editor.saveStateForUndo()

    def canUndo(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> bool:
        """Whether there is an apply to take back."""
        if segmentationNode is None:
            return False
        history = self._histories.get(segmentationNode.GetID())
        return segmentationNode.GetID() in self._made or (
            history is not None and bool(history.IsRestorePreviousStateAvailable())
        )

    def undo(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """Take the last apply to this segmentation back.

        Raises:
            ValueError: there is none.
        """
        history = self._histories.get(segmentationNode.GetID())
        if history is not None and history.IsRestorePreviousStateAvailable():
            history.RestorePreviousState()
        elif segmentationNode.GetID() in self._made:
            del self._made[segmentationNode.GetID()]
            slicer.mrmlScene.RemoveNode(segmentationNode)
        else:
            raise ValueError("no apply to take back")


def _segmentEditorOn(segmentationNode: slicer.vtkMRMLSegmentationNode):
    """The Segment Editor's widget when it has been opened and edits this segmentation."""
    widget = getattr(slicer.modules, "SegmentEditorWidget", None)
    editor = getattr(widget, "editor", None)
    if editor is None or editor.segmentationNodeID() != segmentationNode.GetID():
        return None
    return editor
