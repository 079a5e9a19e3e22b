"""Corrections and the slice views: which slice is shown, and which takes clicks."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.corrected_scene import SHAPE, ras, segment_id
from Testing.support.scene_builders import add_volume, placement


def test_whoever_starts_sees_a_slice_to_click_on(slice_views, opened, nodes):
    import slicer
    from SAMFineTunePanel.scene.slice_view import sliceInView

    other = add_volume(np.zeros(SHAPE, np.int16), placement((1.0, 1.0, 1.0)))
    slicer.util.setSliceViewerLayers(background=other, fit=True)
    red = slicer.app.applicationLogic().GetSliceLogic(slicer.util.getNode("vtkMRMLSliceNodeRed"))
    red.GetSliceNode().SetOrientation("Axial")
    assert sliceInView(nodes[0], "axial").number is None
    correction = opened()
    assert correction.session.number == SHAPE[0] // 2 == sliceInView(nodes[0], "axial").number
    assert red.GetSliceCompositeNode().GetBackgroundVolumeID() == nodes[0].GetID()
    correction.close()
    red.GetSliceCompositeNode().SetBackgroundVolumeID(other.GetID())
    correction = opened()
    # The view lies along the volume already, which nobody saw.
    assert red.GetSliceCompositeNode().GetBackgroundVolumeID() == nodes[0].GetID()


@pytest.mark.parametrize("what", ["segment", "transform"])
def test_a_view_that_moves_after_a_removal_is_not_followed(
    what, slice_views, opened, nodes, process_events
):
    from SAMFineTunePanel.scene.slice_view import showSlice

    volume, segmentation = nodes
    correction = opened()
    if what == "segment":
        segmentation.GetSegmentation().RemoveSegment(segment_id(segmentation, "liver"))
    else:
        warp(segmentation)
    showSlice(volume, "axial", 7)
    process_events(lambda: not correction.session.isOpen)
    expected = {"segment": "was removed from", "transform": "not linear. Harden it"}[what]
    assert expected in correction.status.problem
    with pytest.raises(ValueError, match="No correction is open"):
        correction.look(2)


def warp(node) -> None:
    """Put a node under a transform that is not linear."""
    import slicer
    import vtk

    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    for setter, shift in ((spline.SetSourceLandmarks, 0.0), (spline.SetTargetLandmarks, 9.0)):
        points = vtk.vtkPoints()
        for corner in ((0, 0, 0), (90, 0, 0), (0, 90, 0), (0, 0, 90), (60 + shift, 60, 60)):
            points.InsertNextPoint(corner)
        setter(points)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(transform.GetID())


def test_only_the_slice_in_view_takes_clicks(slice_views, opened, nodes, settle, process_events):
    from SAMFineTunePanel.scene.slice_view import showSlice

    volume, _segmentation = nodes
    showSlice(volume, "axial", 6)
    correction = opened(start="nothing")
    assert correction.session.number == 6
    with pytest.raises(ValueError, match="shows slice 6"):
        correction.addPoint(ras(correction, 25, 20, 5))
    assert correction.session.number == 6 and correction.session.current.prompts == ()
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    showSlice(volume, "axial", 2)
    process_events(lambda: correction.session.number == 2)
    assert correction.session.preview == {}
    correction.undo()
    assert correction.session.number == 6 and correction.session.current.prompts == ()
    process_events()
    assert correction.session.number == 6
