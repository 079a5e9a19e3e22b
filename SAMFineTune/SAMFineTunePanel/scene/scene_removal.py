"""Takes nodes out of the scene."""

from __future__ import annotations

import slicer

from SAMFineTunePanel.scene.sequences import browsersOfScene


def removeNode(node: slicer.vtkMRMLNode | None) -> None:
    """Remove a node from the scene if it is still there.

    Slicer removes the display and storage nodes of a node with it, and the user may remove any node at any time.
    To remove a node a second time makes Slicer log an error, which its status bar shows.
    """
    if node is not None and slicer.mrmlScene.IsNodePresent(node):
        _leaveBrowsers(node)
        slicer.mrmlScene.RemoveNode(node)


def _leaveBrowsers(node: slicer.vtkMRMLNode) -> None:
    """A sequence is taken out of the browsers that play it, as Slicer's module Sequences does."""
    if node.IsA("vtkMRMLSequenceNode"):
        for browser in browsersOfScene():
            if browser.IsSynchronizedSequenceNode(node, True):
                browser.RemoveSynchronizedSequenceNode(node.GetID())


def removeDisplayable(node: slicer.vtkMRMLDisplayableNode | None) -> None:
    """Remove a node from the scene, and its display node."""
    if node is not None:
        display = node.GetDisplayNode()
        removeNode(node)
        removeNode(display)
