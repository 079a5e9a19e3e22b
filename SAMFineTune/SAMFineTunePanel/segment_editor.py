"""Slicer's Segment Editor, as far as it is there: its choices, its widget."""

from __future__ import annotations

import slicer

# Under which Slicer's module Segment Editor keeps its choices in the scene.
_SINGLETON_TAG = "SegmentEditor"


def editorNodeOn(segmentationNode: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLSegmentEditorNode | None:
    """The choices made in the Segment Editor when it is this segmentation that it edits."""
    node = slicer.mrmlScene.GetSingletonNode(_SINGLETON_TAG, "vtkMRMLSegmentEditorNode")
    return node if node is not None and node.GetSegmentationNode() is segmentationNode else None


def editorWidgetOn(segmentationNode: slicer.vtkMRMLSegmentationNode):
    """The Segment Editor's widget when it has been opened and edits this segmentation."""
    widget = getattr(slicer.modules, "SegmentEditorWidget", None)
    editor = getattr(widget, "editor", None)
    if editor is None or editor.segmentationNodeID() != segmentationNode.GetID():
        return None
    return editor
