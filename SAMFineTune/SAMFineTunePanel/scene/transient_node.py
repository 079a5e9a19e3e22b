"""Nodes that show something for a while: not saved with the scene, and not in the lists that users choose from."""

from __future__ import annotations

import slicer

from SAMFineTunePanel.scene.place_mode import PlaceMode


def makeTransientNode(className: str, name: str) -> slicer.vtkMRMLNode:
    """A new node that is not yet in the scene."""
    node = slicer.mrmlScene.CreateNodeByClass(className)
    node.UnRegister(None)
    node.SetName(name)
    # Before it comes into the scene: what is hidden has no place in the tree of data.
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetUndoEnabled(False)
    return node


def addTransientMarkups(className: str, name: str) -> slicer.vtkMRMLMarkupsNode:
    """New markups in the scene, with their display, to be seen in slice views only."""
    node = makeTransientNode(className, name)
    # Slicer makes every new node of markups the one into which clicks place points.
    place = PlaceMode.now()
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    place.apply()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetVisibility3D(False)
    return node
