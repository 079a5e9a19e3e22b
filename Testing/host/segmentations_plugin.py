"""What Slicer's log says of segmentations that are hidden from the tree of data.

Its plug-in for that tree follows every segmentation, and takes it for an error that one without a
place in the tree changes its segments or its display.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import slicer
import vtk

from .collected_errors import record


def watch_segmentations(scene: Any) -> None:
    """Has each change of a hidden segmentation that Slicer would complain of collected."""
    scene.AddObserver(scene.NodeAddedEvent, _on_node_added)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _on_node_added(_scene: Any, _event: str, node: Any) -> None:
    if not node.IsA("vtkMRMLSegmentationNode") or not node.GetHideFromEditors():
        return
    for name, event in (
        ("SegmentAdded", slicer.vtkSegmentation.SegmentAdded),
        ("SegmentModified", slicer.vtkSegmentation.SegmentModified),
        ("DisplayModified", slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent),
    ):
        node.AddObserver(event, partial(_complain, name))


def _complain(name: str, node: Any, _event: str) -> None:
    if slicer.mrmlScene.IsNodePresent(node):
        record(f"{name}: unable to find subject hierarchy item for segmentation {node.GetName()}")
