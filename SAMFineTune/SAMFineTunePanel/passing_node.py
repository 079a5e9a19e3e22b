"""Nodes that show something for a while: not saved with the scene, and not in the lists that users choose from."""

from __future__ import annotations

import slicer


def addPassingNode(className: str, name: str) -> slicer.vtkMRMLDisplayableNode:
    """A new node in the scene, with its display, to be seen in slice views only."""
    node = slicer.mrmlScene.CreateNodeByClass(className)
    node.UnRegister(None)
    node.SetName(name)
    # Before it comes into the scene: what is hidden has no place in the tree of data.
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetUndoEnabled(False)
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetVisibility3D(False)
    return node
