"""Sequences of volumes in Slicer's scene, each frame with voxels of its own."""

from __future__ import annotations

import numpy as np

from Testing.support.scene_builders import add_volume, placement

SHAPE = (8, 20, 24)
# Index values, as a time in milliseconds; they are not the numbers of the frames.
TIMES = ("0", "40", "80.5", "120")
# The frame whose voxels are larger, and which has fewer slices.
OTHER, OTHER_SHAPE = 2, (5, 20, 24)


def frame_voxels(number: int) -> np.ndarray:
    """What is in a frame of `add_sequence`: values from 1000 times its number on."""
    shape = OTHER_SHAPE if number == OTHER else SHAPE
    values = np.arange(np.prod(shape)).reshape(shape) % 900
    return (values + 1000 * number).astype(np.int16)


def frame_placement(number: int) -> np.ndarray:
    return placement((1, 1, 3.2 if number == OTHER else 2), origin=(5.0 * number, 0, 0))


def add_sequence(name: str = "Heart", voxels=frame_voxels):
    """The node that shows the first frame, and its browser."""
    import slicer

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    sequence.SetIndexName("trigger")
    sequence.SetIndexUnit("ms")
    for number, time in enumerate(TIMES):
        node = add_volume(voxels(number), frame_placement(number), name)
        sequence.SetDataNodeAtValue(node, time)
        slicer.mrmlScene.RemoveNode(node)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{name} browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return browser.GetProxyNode(sequence), browser


def add_companion(browser, name: str, voxels=frame_voxels):
    """Another sequence that the same browser plays; the node that shows it."""
    import slicer

    node = add_volume(voxels(0), frame_placement(0), name)
    logic = slicer.modules.sequences.logic()
    sequence = logic.AddSynchronizedNode(None, node, browser)
    for number, time in enumerate(TIMES):
        slicer.util.updateVolumeFromArray(node, voxels(number))
        sequence.SetDataNodeAtValue(node, time)
    return node
