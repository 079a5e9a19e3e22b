"""Fixtures for tests of the Segment Editor's effect."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.recorded_correction import SHAPE
from Testing.support.scene_builders import add_segmentation, add_volume, box, placement


@pytest.fixture
def editor():
    """The editor's node, with a volume and two segments."""
    import slicer

    volume = add_volume(np.zeros(SHAPE, np.int16), placement())
    segmentation = add_segmentation(
        volume, {"liver": box(SHAPE, (1, 5), (2, 8), (3, 9)), "spleen": np.zeros(SHAPE, bool)}
    )
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    node.SetAndObserveSourceVolumeNode(volume)
    node.SetAndObserveSegmentationNode(segmentation)
    node.SetSelectedSegmentID(segmentation.GetSegmentation().GetNthSegmentID(0))
    return node


@pytest.fixture
def mouse():
    """Presses, moves and releases in a slice view of 200 x 100 pixels of half a millimetre."""
    import slicer
    import vtk

    class Mouse:
        def __init__(self) -> None:
            self.interactor = vtk.vtkRenderWindowInteractor()
            self.slice_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
            self.slice_node.SetLayoutName("Red")
            self.slice_node.SetOrientation("Axial")
            self.slice_node.SetDimensions(200, 100, 1)
            self.slice_node.SetFieldOfView(100, 50, 1)
            self.slice_node.SetSliceOffset(7.0)
            self.slice_node.UpdateMatrices()

        def act(self, reader, event: str, x: int, y: int, ctrl=0, shift=0, alt=0) -> bool:
            self.interactor.SetEventInformation(x, y, ctrl, shift)
            self.interactor.SetAltKey(alt)
            number = getattr(vtk.vtkCommand, f"{event}Event")
            return reader.handle(number, self.interactor, self.slice_node)

    return Mouse()
