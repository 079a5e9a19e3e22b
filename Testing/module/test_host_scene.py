"""The host's scene, files and views: the real MRML, set up as in the application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vtk

from Testing.host import expected_errors

LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)


@pytest.fixture
def slicer(slicer_app: Any, scene: Any) -> Any:
    return slicer_app


def oblique() -> np.ndarray:
    """IJK to RAS of a volume that is turned, with unequal voxels and beside the origin."""
    a, b = np.radians([20.0, 35.0])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_x @ np.diag([0.7, 1.1, 3.0])
    matrix[:3, 3] = 12.0, -30.0, 45.5
    return matrix


def make_pair(slicer: Any, matrix: np.ndarray) -> tuple[Any, Any, np.ndarray]:
    """A volume, a segmentation with the segment "liver", and the segment's voxels."""
    values = np.arange(6 * 9 * 11, dtype=np.int16).reshape(6, 9, 11)
    volume = slicer.util.addVolumeFromArray(values, matrix, "CT")
    voxels = np.zeros(values.shape, np.uint8)
    voxels[2:4, 3:7, 1:9] = 1
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Labels")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment_id = node.GetSegmentation().AddEmptySegment("liver", "Liver", [0.8, 0.4, 0.2])
    tag = slicer.vtkSegment.GetTerminologyEntryTagName()
    node.GetSegmentation().GetSegment(segment_id).SetTag(tag, LIVER)
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, volume)
    return volume, node, voxels


def test_oblique_segmentation_round_trip(slicer: Any) -> None:
    volume, node, voxels = make_pair(slicer, oblique())
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", volume)
    assert np.array_equal(found, voxels)


def test_oblique_volume_through_a_file(slicer: Any, tmp_path: Path) -> None:
    volume, _, _ = make_pair(slicer, oblique())
    assert slicer.util.saveNode(volume, str(tmp_path / "ct.nrrd"))
    again = slicer.util.loadVolume(str(tmp_path / "ct.nrrd"))
    matrix = slicer.vtkMRMLVolumeNode.GetIJKToRASMatrix
    import vtk

    read = vtk.vtkMatrix4x4()
    matrix(again, read)
    assert np.allclose(slicer.util.arrayFromVTKMatrix(read), oblique(), atol=1e-6)
    assert np.array_equal(slicer.util.arrayFromVolume(again), slicer.util.arrayFromVolume(volume))


def test_parent_transform_moves_the_world(slicer: Any) -> None:
    volume, node, voxels = make_pair(slicer, np.eye(4))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(transform, oblique())
    volume.SetAndObserveTransformNodeID(transform.GetID())
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    corners = np.array(np.meshgrid([-0.5, 10.5], [-0.5, 8.5], [-0.5, 5.5])).reshape(3, -1)
    moved = oblique()[:3, :3] @ corners + oblique()[:3, 3:]
    assert np.allclose(bounds[::2], moved.min(axis=1)) and np.allclose(
        bounds[1::2], moved.max(axis=1)
    )
    # The volume has moved away from the segmentation, which has not.
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", volume)
    assert not np.array_equal(found, voxels)
    node.SetAndObserveTransformNodeID(transform.GetID())
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", volume)
    assert np.array_equal(found, voxels)


def test_bundle_round_trip(slicer: Any, tmp_path: Path) -> None:
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

    class HostTestLogic(ScriptedLoadableModuleLogic):
        pass

    volume, _, voxels = make_pair(slicer, oblique())
    parameters = HostTestLogic().getParameterNode()
    parameters.SetParameter("steps", "40")
    parameters.SetNodeReferenceID("volume", volume.GetID())
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    volume, node = slicer.util.getNode("CT"), slicer.util.getNode("Labels")
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "liver", volume)
    assert np.array_equal(found, voxels)
    segment = node.GetSegmentation().GetSegment("liver")
    assert segment.GetName() == "Liver" and np.allclose(
        segment.GetColor(), [0.8, 0.4, 0.2], atol=0.01
    )
    assert _terminology(segment) == LIVER
    parameters = HostTestLogic().getParameterNode()
    assert parameters.GetParameter("steps") == "40"
    assert parameters.GetNodeReference("volume") is volume


def _terminology(segment: Any) -> str:
    import slicer
    import vtk

    value = vtk.mutable("")
    assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), value)
    return str(value)


def test_terminology_is_understood(slicer: Any) -> None:
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.modules.terminologies.logic()
    assert logic.DeserializeTerminologyEntry(LIVER, entry)
    assert entry.GetTypeObject().GetCodeMeaning() == "Liver"


def test_closing_the_scene_is_announced(slicer: Any) -> None:
    scene, heard = slicer.mrmlScene, []
    tags = [
        scene.AddObserver(event, lambda caller, name: heard.append(name))
        for event in (scene.StartCloseEvent, scene.EndCloseEvent)
    ]
    scene.Clear(0)
    for tag in tags:
        scene.RemoveObserver(tag)
    assert len(heard) == 2
    assert scene.GetSubjectHierarchyNode() is not None


@pytest.fixture
def window(slicer: Any, layout_manager: Any) -> Iterator[Any]:
    from Testing.host.desktop import main_window

    window = main_window()
    yield window
    window.hide()


def test_a_click_in_a_slice_view_places_a_point(
    slicer: Any, window: Any, layout_manager: Any
) -> None:
    import qt
    from PySide6.QtTest import QTest

    volume, _, _ = make_pair(slicer, np.diag([2.0, 2.0, 3.0, 1.0]))
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    points.CreateDefaultDisplayNodes()
    slicer.modules.markups.logic().SetActiveList(points)
    mode = slicer.app.applicationLogic().GetInteractionNode()
    mode.SetCurrentInteractionMode(mode.Place)
    red = layout_manager.sliceWidget("Red")
    view, place = red.sliceView(), qt.QPoint(150, 120)
    QTest.mouseMove(view, place)
    QTest.mouseClick(view, qt.Qt.LeftButton, qt.Qt.NoModifier, place)
    mode.SetCurrentInteractionMode(mode.ViewTransform)
    height = view.renderWindow().GetSize()[1]
    expected = red.mrmlSliceNode().GetXYToRAS().MultiplyPoint((150, height - 1 - 120, 0, 1))[:3]
    assert points.GetNumberOfDefinedControlPoints() == 1
    assert np.allclose(points.GetNthControlPointPositionWorld(0), expected)


def test_slice_view_shows_the_volume_and_the_segment(
    slicer: Any, window: Any, layout_manager: Any, tmp_path: Path
) -> None:
    import qt

    volume, node, _ = make_pair(slicer, np.diag([2.0, 2.0, 3.0, 1.0]))
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    red = layout_manager.sliceWidget("Red")
    red.mrmlSliceNode().JumpSliceByCentering(10.0, 9.0, 9.0)
    picture = qt.QImage(str(window.screenshot(tmp_path / "window.png")))
    view = red.sliceView()
    where = view.mapTo(window, qt.QPoint(view.width // 2, view.height // 2))
    colour = picture.pixelColor(where)
    assert colour.red() > colour.green() > colour.blue()
    node.GetDisplayNode().SetVisibility(False)
    picture = qt.QImage(str(window.screenshot(tmp_path / "window.png")))
    colour = picture.pixelColor(where)
    assert colour.red() == colour.green() == colour.blue() > 0


def test_layout_says_which_views_are_seen(slicer: Any, window: Any, layout_manager: Any) -> None:
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    green = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeGreen")
    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    assert red.IsMappedInLayout() and not green.IsMappedInLayout()
    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    assert green.IsMappedInLayout() and layout_manager.sliceWidget("Green").visible


def test_chart_is_shown_in_the_layout(slicer: Any, window: Any, layout_manager: Any) -> None:
    chart, _ = make_chart(slicer, [[0.0, 1.0], [1.0, 0.4]])
    plot = layout_manager.plotWidget(0)
    assert plot.mrmlPlotViewNode().GetPlotChartNode() is chart and plot.visible
    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    assert not plot.visible


def test_selecting_a_module_enters_it(slicer: Any, module: Any, window: Any) -> None:
    slicer.util.selectModule("SAMFineTune")
    assert module.widgetRepresentation().isEntered
    assert slicer.util.selectedModule() == "SAMFineTune"
    module.widgetRepresentation().exit()


def test_a_display_goes_with_its_node(slicer: Any) -> None:
    volume, node, _ = make_pair(slicer, np.eye(4))
    for one in (volume, node, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")):
        one.CreateDefaultDisplayNodes()
        display = one.GetDisplayNode()
        slicer.mrmlScene.RemoveNode(one)
        assert not slicer.mrmlScene.IsNodePresent(display)
        with expected_errors("Invalid scene given"):
            slicer.mrmlScene.RemoveNode(display)


def test_warnings_of_vtk_are_errors(slicer: Any) -> None:
    with expected_errors("Invalid scene given"):
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(None)


def make_chart(slicer: Any, points: list[list[float]]) -> tuple[Any, Any]:
    """A chart of one series, in view, and the series' table."""
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.util.updateTableFromArray(table, np.array(points), ["step", "loss"])
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "loss")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("step")
    series.SetYColumnName("loss")
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    slicer.modules.plots.logic().ShowChartInLayout(chart)
    return chart, table


def drag(view: Any, right: int, down: int) -> None:
    """A drag with the left button from the middle of a view."""
    import qt
    from PySide6.QtTest import QTest

    start = qt.QPoint(view.width // 2, view.height // 2)
    end = start + qt.QPoint(right, down)
    QTest.mousePress(view, qt.Qt.LeftButton, qt.Qt.NoModifier, start)
    QTest.mouseMove(view, end)
    QTest.mouseRelease(view, qt.Qt.LeftButton, qt.Qt.NoModifier, end)


def test_axes_of_a_plot_stay_until_they_are_fitted(
    slicer: Any, window: Any, layout_manager: Any
) -> None:
    chart, table = make_chart(slicer, [[0.0, 1.0], [5.0, 0.4]])
    view = layout_manager.plotWidget(0).plotView()
    view.forceRender()
    assert view._axis_range(vtk.vtkAxis.BOTTOM) == (0.0, 5.0)
    longer = vtk.vtkTable()
    longer.DeepCopy(table.GetTable())
    row = longer.InsertNextBlankRow()
    longer.SetValueByName(row, "step", 30.0)
    table.SetAndObserveTable(longer)
    view.forceRender()
    assert view._axis_range(vtk.vtkAxis.BOTTOM) == (0.0, 5.0)
    view.fitToContent()
    assert chart.GetXAxisRange() == (0.0, 30.0)


def test_the_mouse_moves_a_plot(slicer: Any, window: Any, layout_manager: Any) -> None:
    chart, _ = make_chart(slicer, [[0.0, 1.0], [10.0, 0.4]])
    view = layout_manager.plotWidget(0).plotView()
    view.fitToContent()
    view.forceRender()
    before = chart.GetXAxisRange()
    drag(view, 40, 0)
    assert chart.GetXAxisRange()[1] < before[1]
