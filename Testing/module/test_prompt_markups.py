"""Prompts as control points: clicks, drags and deletions in a slice view, and the mask shown."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.correction_workers import pretend, wait_until_idle
from Testing.support.scene_builders import (
    add_segmentation,
    add_transform,
    add_volume,
    box,
    placement,
)
from Testing.support.time_limits import require_faster

SHAPE = (9, 60, 60)


@pytest.fixture(scope="module")
def window(slicer_app, layout_manager):
    from Testing.host.desktop import main_window

    window = main_window()
    yield window
    window.hide()


@pytest.fixture
def nodes(module, scene, window):
    import slicer

    layout = slicer.app.layoutManager()
    layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    # Not parallel to the world's axes; the view is turned along with it.
    volume = add_volume(values, placement((1.0, 1.0, 3.0), (0, 0, 1), 15.0, (4.0, -6.0, 2.0)))
    segmentation = add_segmentation(volume, {"liver": box(SHAPE, (3, 5), (10, 20), (10, 20))})
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume, segmentation


@pytest.fixture
def correction(nodes, monkeypatch, process_events):
    from SAMFineTunePanel.correction.correction import Correction
    from SAMFineTunePanel.scene.slice_view import showSlice

    pretend(monkeypatch)
    volume, segmentation = nodes
    showSlice(volume, "axial", 4)
    correction = Correction()
    segment_id = segmentation.GetSegmentation().GetNthSegmentID(0)
    correction.open(volume, segmentation, segment_id, start="nothing")
    wait_until_idle(correction, process_events)
    yield correction
    correction.endForClosing()


@pytest.fixture
def complaints():
    return []


@pytest.fixture
def markups(correction, complaints):
    from SAMFineTunePanel.correction_display.prompt_markups import PromptMarkups

    markups = PromptMarkups(correction, complaints.append, lambda: None)
    yield markups
    markups.remove()


@pytest.fixture
def settle(correction, process_events):
    def settle() -> None:
        process_events()
        process_events()
        wait_until_idle(correction, process_events)

    return settle


def view_of(name: str = "Red"):
    import slicer

    return slicer.app.layoutManager().sliceWidget(name)


def in_view(correction, i: float, j: float, k: float = 4, name: str = "Red"):
    """Where in a view a place of the volume is seen."""
    import qt
    import vtk

    widget = view_of(name)
    to_xy = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(widget.mrmlSliceNode().GetXYToRAS(), to_xy)
    x, y, _z, _w = to_xy.MultiplyPoint((*correction.session.segment.rasOf((i, j, k)), 1.0))
    return qt.QPoint(round(x), round(widget.sliceView().renderWindow().GetSize()[1] - 1 - y))


def click(correction, i: float, j: float, k: float = 4, name: str = "Red") -> None:
    import qt
    from PySide6.QtTest import QTest

    view, where = view_of(name).sliceView(), in_view(correction, i, j, k, name)
    QTest.mouseMove(view, where)
    QTest.mouseClick(view, qt.Qt.LeftButton, qt.Qt.NoModifier, where)


def drag(correction, start, end) -> None:
    import qt
    from PySide6.QtTest import QTest

    view = view_of().sliceView()
    first, last = in_view(correction, *start), in_view(correction, *end)
    QTest.mouseMove(view, first)
    QTest.mousePress(view, qt.Qt.LeftButton, qt.Qt.NoModifier, first)
    for part in (0.3, 0.6, 1.0):
        QTest.mouseMove(view, first + (last - first) * part)
    QTest.mouseRelease(view, qt.Qt.LeftButton, qt.Qt.NoModifier, last)


def places(correction) -> list:
    return [
        (round(each.at[0]), round(each.at[1]), each.positive) if each.kind == "point" else each.kind
        for each in correction.session.current.prompts
    ]


def set_points(kind: str) -> int:
    import slicer

    names = {"positive": "Positive points", "negative": "Negative points", "box": "Corners*"}
    nodes = slicer.util.getNodes(names[kind])
    return sum(each.GetNumberOfDefinedControlPoints() for each in nodes.values())


def test_clicks_are_prompts_and_the_mask_is_shown(correction, markups, settle, complaints):
    markups.place("positive")
    click(correction, 20, 30)
    settle()
    assert places(correction) == [(20, 30, True)] and correction.session.preview[4][30, 20]
    click(correction, 40, 30)
    settle()
    markups.place("negative")
    click(correction, 30, 10)
    settle()
    assert places(correction) == [(20, 30, True), (40, 30, True), (30, 10, False)]
    assert (set_points("positive"), set_points("negative")) == (2, 1)
    assert set(complaints) == {""}
    markups.place("")
    click(correction, 10, 10)
    settle()
    assert len(places(correction)) == 3


def test_two_clicks_are_a_box(correction, markups, settle):
    import slicer

    markups.place("box")
    click(correction, 10, 15)
    settle()
    assert places(correction) == [] and set_points("box") == 1
    click(correction, 30, 25)
    settle()
    assert places(correction) == ["box"] and set_points("box") == 2
    corners = np.round(correction.session.current.prompts[0].corners)
    assert np.allclose(corners, [(10, 15, 4), (30, 25, 4)], atol=1)
    outline = slicer.util.getNode("Box")
    assert outline.GetNumberOfControlPoints() == 4 and outline.GetDisplayNode().GetVisibility()
    assert correction.session.preview[4][20, 20] and markups.placing == "positive"
    click(correction, 40, 40)
    settle()
    markups.place("box")
    click(correction, 5, 5)
    click(correction, 15, 25)
    settle()
    assert places(correction) == [(40, 40, True), "box"] and set_points("box") == 2
    correction.clearPrompts()
    assert set_points("box") == 0 and not outline.GetDisplayNode().GetVisibility()


def test_a_box_follows_the_mouse_to_its_second_corner(correction, markups, settle):
    import slicer
    from PySide6.QtTest import QTest

    markups.place("box")
    click(correction, 10, 15)
    settle()
    for i in (16, 22, 30):
        QTest.mouseMove(view_of().sliceView(), in_view(correction, i, 25))
        settle()
    outline = slicer.util.getNode("Box")
    assert outline.GetNumberOfControlPoints() == 4 and outline.GetDisplayNode().GetVisibility()
    click(correction, 30, 25)
    settle()
    assert places(correction) == ["box"] and outline.GetNumberOfControlPoints() == 4
    click(correction, 20, 40)
    settle()
    assert places(correction) == ["box", (20, 40, True)]


def test_prompts_of_another_kind_that_come_into_view_take_no_clicks(correction, markups, settle):
    markups.place("positive")
    click(correction, 20, 30)
    settle()
    correction.addPoint(correction.session.segment.rasOf((40, 30, 4)), False)
    correction.addBox(
        correction.session.segment.rasOf((5, 5, 4)), correction.session.segment.rasOf((9, 9, 4))
    )
    settle()
    click(correction, 30, 10)
    settle()
    assert places(correction) == [(20, 30, True), (40, 30, False), "box", (30, 10, True)]


@pytest.mark.parametrize("kind", ["positive", "box"])
def test_a_right_click_ends_the_placing(kind, correction, markups, settle):
    import qt
    import slicer
    from PySide6.QtTest import QTest

    markups.place(kind)
    click(correction, 10, 15)
    settle()
    found = places(correction)
    view = view_of().sliceView()
    QTest.mouseClick(view, qt.Qt.RightButton, qt.Qt.NoModifier, in_view(correction, 12, 17))
    settle()
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert markups.placing == "" and set_points("box") == 0
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    for i in (20, 30):
        click(correction, i, 20 + i)
        settle()
    assert places(correction) == found


def test_the_users_own_markups_are_placed_again_afterwards(correction, markups, settle):
    import slicer

    logic = slicer.app.applicationLogic()
    selection, interaction = logic.GetSelectionNode(), logic.GetInteractionNode()
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode")
    interaction.SetPlaceModePersistence(0)
    markups.place("box")
    assert selection.GetActivePlaceNodeID() != own.GetID()
    markups.place("negative")
    click(correction, 10, 15)
    settle()
    markups.place("")
    assert selection.GetActivePlaceNodeID() == own.GetID()
    assert selection.GetActivePlaceNodeClassName() == "vtkMRMLMarkupsLineNode"
    assert not interaction.GetPlaceModePersistence()
    # Chosen by the user meanwhile.
    markups.place("box")
    click(correction, 30, 15)
    settle()
    selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsLineNode")
    selection.SetReferenceActivePlaceNodeID(own.GetID())
    assert markups.placing == "" and set_points("box") == 0
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    assert selection.GetActivePlaceNodeID() == own.GetID()
    interaction.SwitchToViewTransformMode()
    assert places(correction) == [(10, 15, False)]


def test_drags_move_prompts_as_one_step(correction, markups, settle):
    markups.place("positive")
    click(correction, 20, 30)
    settle()
    markups.place("")
    drag(correction, (20, 30), (35, 40))
    settle()
    assert places(correction) == [(35, 40, True)] and correction.session.preview[4][40, 35]
    assert not correction.session.preview[4][30, 20]
    correction.undo()
    settle()
    assert places(correction) == [(20, 30, True)] and set_points("positive") == 1
    correction.undo()
    settle()
    assert places(correction) == [] and set_points("positive") == 0
    correction.redo()
    settle()
    drag(correction, (20, 30), (25, 30))
    settle()
    assert places(correction) == [(25, 30, True)]


def test_deleted_points_are_deleted_prompts(correction, markups, settle):
    import slicer

    for i in (10, 20, 30):
        correction.addPoint(correction.session.segment.rasOf((i, 30, 4)))
    correction.addBox(
        correction.session.segment.rasOf((5, 5, 4)), correction.session.segment.rasOf((9, 9, 4))
    )
    settle()
    slicer.util.getNode("Positive points").RemoveNthControlPoint(1)
    settle()
    assert places(correction) == [(10, 30, True), (30, 30, True), "box"]
    slicer.util.getNode("Corners of the box").RemoveNthControlPoint(0)
    settle()
    assert places(correction) == [(10, 30, True), (30, 30, True)] and set_points("box") == 0
    slicer.util.getNode("Positive points").RemoveAllControlPoints()
    settle()
    assert places(correction) == [] and correction.session.preview == {}
    correction.undo()
    correction.undo()
    assert set_points("positive") == 2


def test_clicks_while_placing_survive_what_undo_removes(correction, markups, settle):
    markups.place("positive")
    for i in (10, 20, 30):
        click(correction, i, 30)
        settle()
    correction.undo()
    correction.undo()
    settle()
    click(correction, 40, 20)
    settle()
    assert places(correction) == [(10, 30, True), (40, 20, True)]
    assert set_points("positive") == 2 and markups.placing == "positive"


def test_only_prompts_of_the_slice_in_view_are_shown(
    correction, markups, settle, nodes, process_events
):
    from SAMFineTunePanel.scene.slice_view import showSlice

    markups.place("positive")
    click(correction, 20, 30)
    settle()
    showSlice(nodes[0], "axial", 6)
    process_events(lambda: correction.session.number == 6)
    assert set_points("positive") == 0
    click(correction, 25, 35, 6)
    settle()
    assert places(correction) == [(25, 35, True)] and set_points("positive") == 1
    showSlice(nodes[0], "axial", 4)
    process_events(lambda: correction.session.number == 4)
    assert places(correction) == [(20, 30, True)] and set_points("positive") == 1


def test_clicks_that_cannot_be_are_taken_back_in_words(correction, markups, settle, complaints):
    markups.place("positive")
    # The coronal view, well beside the slice that the axial one shows.
    click(correction, 20, 30, 7, "Green")
    settle()
    assert "view Red shows slice 4" in complaints[-1]
    markups.place("positive")
    click(correction, -8, 30)
    settle()
    assert "outside" in complaints[-1]
    assert places(correction) == [] and set_points("positive") == 0
    markups.place("box")
    click(correction, -8, 30)
    settle()
    assert "outside" in complaints[-1] and set_points("box") == 0
    click(correction, 20, 30)
    click(correction, 20, 30)
    settle()
    assert "no area" in complaints[-1] and places(correction) == [] and set_points("box") == 0
    markups.place("positive")
    click(correction, 20, 30)
    settle()
    assert complaints[-1] == "" and len(places(correction)) == 1


def test_points_stay_inside_the_volume_and_on_their_slice(correction, markups, settle, complaints):
    import slicer

    correction.addPoint(correction.session.segment.rasOf((20, 30, 4)))
    settle()
    node = slicer.util.getNode("Positive points")
    node.SetNthControlPointPositionWorld(0, 500.0, 0.0, 0.0)
    settle()
    assert "outside" in complaints[-1] and places(correction) == [(20, 30, True)]
    expected = correction.session.segment.rasOf((20, 30, 4))
    assert np.allclose(node.GetNthControlPointPositionWorld(0), expected)
    node.SetNthControlPointPositionWorld(0, *correction.session.segment.rasOf((22, 30, 6)))
    settle()
    assert np.allclose(correction.session.current.prompts[0].at, (22, 30, 4), atol=0.01)
    expected = correction.session.segment.rasOf((22, 30, 4))
    assert np.allclose(node.GetNthControlPointPositionWorld(0), expected, atol=0.01)


def test_points_follow_a_volume_that_is_moved(correction, markups, settle, nodes, process_events):
    import slicer

    correction.addPoint(correction.session.segment.rasOf((20, 30, 4)))
    add_transform(placement(origin=(50.0, 0.0, 0.0)), nodes[0])
    node = slicer.util.getNode("Positive points")
    process_events(
        lambda: np.allclose(
            node.GetNthControlPointPositionWorld(0), correction.session.segment.rasOf((20, 30, 4))
        )
    )
    assert places(correction) == [(20, 30, True)]


def test_nothing_of_it_is_saved_offered_or_left_behind(
    correction, markups, settle, scene, nodes, tmp_path
):
    import slicer
    from SAMFineTunePanel.correction_display.mask_preview import MaskPreview
    from SAMFineTunePanel.scene.scene_pairs import nextPair

    taken = {(nodes[0].GetID(), nodes[1].GetID())}
    before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
    preview = MaskPreview(correction)
    markups.place("negative")
    correction.addPoint(correction.session.segment.rasOf((20, 30, 4)))
    correction.addBox(
        correction.session.segment.rasOf((5, 5, 4)), correction.session.segment.rasOf((9, 9, 4))
    )
    settle()
    made = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLNode")
        if node.GetID() not in before and not node.IsA("vtkMRMLStorageNode")
    ]
    assert len(made) >= 8 and not any(node.GetSaveWithScene() for node in made)
    shown = [node for node in made if node.IsA("vtkMRMLDisplayableNode")]
    assert all(node.GetHideFromEditors() for node in shown) and nextPair(taken) is None
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    assert not any(hierarchy.GetItemByDataNode(node) for node in shown)
    assert preview.node in made and slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    text = (tmp_path / "scene.mrml").read_text(encoding="utf-8")
    assert "Positive points" not in text and "Proposed mask" not in text
    correction.close()
    left = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")} - before
    kinds = {slicer.mrmlScene.GetNodeByID(each).GetClassName() for each in left}
    assert not any("Markups" in each or "Segmentation" in each for each in kinds)
    preview.remove()
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform


def shown(preview) -> np.ndarray:
    """The labelmap of what is proposed, (rows, columns)."""
    import slicer

    return slicer.util.arrayFromSegmentInternalBinaryLabelmap(preview.node, "preview")[0]


def test_the_preview_has_the_segments_colour_made_paler(correction, settle, nodes):
    from SAMFineTunePanel.correction_display.mask_preview import MaskPreview

    preview = MaskPreview(correction)
    correction.addPoint(correction.session.segment.rasOf((40, 40, 4)))
    settle()
    nodes[1].GetSegmentation().GetNthSegment(0).SetColor(0.0, 0.0, 1.0)
    preview.update()
    assert shown(preview)[40, 40]
    red, green, blue = preview.node.GetSegmentation().GetNthSegment(0).GetColor()
    assert red == green < 0.7 and blue == 1.0
    preview.remove()


def test_the_preview_is_seen_in_the_view_and_moves_with_the_slice(
    correction, settle, nodes, process_events
):
    from SAMFineTunePanel.correction_display.mask_preview import MaskPreview
    from SAMFineTunePanel.scene.slice_view import showSlice

    def colour():
        view = view_of().sliceView()
        view.forceRender()
        return view._image.pixelColor(in_view(correction, 40, 40))

    preview = MaskPreview(correction)
    assert preview.node is None
    bare = colour()
    assert bare.red() == bare.green() == bare.blue()
    correction.addPoint(correction.session.segment.rasOf((40, 40, 4)))
    settle()
    assert colour().green() > bare.green() + 10
    showSlice(nodes[0], "axial", 6)
    process_events(lambda: correction.session.number == 6)
    assert colour().red() == colour().green()
    showSlice(nodes[0], "axial", 4)
    process_events(lambda: correction.session.number == 4)
    assert colour().green() > bare.green() + 10
    found = correction.session.preview[4]
    correction.accept()
    assert not shown(preview).any()
    correction.undo()
    assert shown(preview)[40, 40] and shown(preview).sum() == found.sum()
    preview.remove()
    assert colour().green() == bare.green()


def test_a_new_mask_costs_slicer_little(correction, markups, settle, process_events, window):
    """What Slicer adds to the network's own time, without drawing, which a graphics card does."""
    import time

    from SAMFineTunePanel.correction_display.mask_preview import MaskPreview

    preview = MaskPreview(correction)
    correction.addPoint(correction.session.segment.rasOf((20, 30, 4)))
    settle()
    window.hide()
    seconds = []
    for i in range(12):
        before, found = time.thread_time(), correction.session.preview[4]
        correction.addPoint(correction.session.segment.rasOf((25 + i, 30, 4)))
        seconds.append(time.thread_time() - before)
        while correction.session.preview[4] is found or not correction.session.current.isFound:
            before = time.thread_time()
            process_events()
            seconds[-1] += time.thread_time() - before
            time.sleep(0.002)
    preview.remove()
    window.show()
    require_faster(float(np.median(seconds)), 0.05, "what Slicer adds to a new mask")


def test_views_are_drawn_anew_for_another_mask_only(correction, settle):
    from SAMFineTunePanel.correction_display.mask_preview import MaskPreview

    preview = MaskPreview(correction)
    correction.addPoint(correction.session.segment.rasOf((20, 30, 4)))
    settle()
    times = []
    segmentation = preview.node.GetSegmentation()
    event = segmentation.RepresentationModified
    tag = preview.node.AddObserver(event, lambda *_: times.append(1))
    preview.update()
    preview.update()
    assert times == []
    correction.addPoint(correction.session.segment.rasOf((25, 30, 4)))
    settle()
    preview.node.RemoveObserver(tag)
    preview.remove()
    assert len(times) == 1
