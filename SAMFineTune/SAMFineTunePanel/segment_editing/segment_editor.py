"""A Segment Editor in which segments are edited: its choices, and its undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import slicer

# Under which Slicer's module Segment Editor keeps its choices in the scene.
_SINGLETON_TAG = "SegmentEditor"


@dataclass(frozen=True, eq=False)
class SegmentEditor:
    """What an editor has to do with a segmentation that it edits.

    Attributes:
        node: its choices; None where nobody has chosen anything for this segmentation.
        saveState: has it keep the segmentation as it is now, for its undo.
    """

    node: slicer.vtkMRMLSegmentEditorNode | None
    saveState: Callable[[], None]


def slicersEditor(segmentationNode: slicer.vtkMRMLSegmentationNode) -> SegmentEditor:
    """Slicer's module Segment Editor, as far as it is this segmentation that it edits.

    Its choices are one node of the scene, for the segmentation that is open in it: its masks name segments of
    that one, its intensities are of the volume chosen beside it, and the user sees them only there.
    """
    node = slicer.mrmlScene.GetSingletonNode(_SINGLETON_TAG, "vtkMRMLSegmentEditorNode")
    isAbout = node is not None and node.GetSegmentationNode() is segmentationNode
    return SegmentEditor(node if isAbout else None, _stateSaver(segmentationNode))


def _stateSaver(segmentationNode: slicer.vtkMRMLSegmentationNode) -> Callable[[], None]:
    """Saves a state for undo in the Segment Editor's own widget, if it is open on this segmentation."""
    widget = getattr(slicer.modules, "SegmentEditorWidget", None)
    editor = getattr(widget, "editor", None)
    if editor is None or editor.segmentationNodeID() != segmentationNode.GetID():
        return lambda: None
    return editor.saveStateForUndo
