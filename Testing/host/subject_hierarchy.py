"""What Slicer's log says of nodes that are removed from a scene in which they no longer are.

The plug-ins of its tree of data look at every node that is about to be removed, and ask for the
tree of the scene that the node is in.
"""

from __future__ import annotations

from typing import Any

import vtk

from .collected_errors import record


def watch_removals(scene: Any) -> None:
    """Has each removal of a node that is in no scene collected."""
    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, _on_node_about_to_be_removed)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _on_node_about_to_be_removed(scene: Any, _event: str, node: Any) -> None:
    if not scene.IsClosing() and node.GetScene() is None:
        record(
            "GetSubjectHierarchyNode: Invalid scene given\n"
            f"onNodeAboutToBeRemoved: {node.GetClassName()} {node.GetName()} is in no scene"
        )
