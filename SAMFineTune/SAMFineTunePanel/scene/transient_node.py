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


def addTransientMarkups(className: str, name: str, colour: tuple[float, float, float]) -> slicer.vtkMRMLMarkupsNode:
    """New markups in the scene, without labels, to be seen in slice views only.

    Args:
        className: of the node.
        name: of the node.
        colour: red, green, blue, from 0 to 1.
    """
    node = makeTransientNode(className, name)
    # Slicer makes every new node of markups the one into which clicks place points.
    place = PlaceMode.now()
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    place.apply()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetVisibility3D(False)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    for setColour in (display.SetColor, display.SetSelectedColor):
        setColour(*colour)
    return node
