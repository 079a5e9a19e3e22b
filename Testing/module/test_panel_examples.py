"""The section of examples, driven as a user does, with slice views that follow."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from Testing.support.scene_builders import add_segmentation, add_volume, box, placement
from Testing.support.time_limits import within

SHAPE = (20, 24, 28)
LIVER, SPLEEN = (4, 8, 12), (8,)


def painted(slices, j, i) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for number in slices:
        mask |= box(SHAPE, (number, number + 1), j, i)
    return mask


@pytest.fixture
def ct(panel, layout_manager):
    import slicer

    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    volume = add_volume(np.random.default_rng(0).normal(size=SHAPE), placement((1, 1, 3)), "CT")
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume


@pytest.fixture
def labels(ct):
    return add_segmentation(
        ct,
        {
            "liver": painted(LIVER, (4, 14), (4, 14)),
            "spleen": painted(SPLEEN, (16, 22), (16, 26)),
        },
    )


@pytest.fixture
def section(panel):
    return panel.panel.examples


@pytest.fixture
def example(section, labels, process_events):
    """One example, added by the button."""
    process_events(lambda: section.ui.addButton.enabled)
    section.ui.addButton.click()
    process_events(lambda: section.row == 0)
    return section.parameterNode.examples[0]


def cells(section) -> list[list[str]]:
    table = section.ui.examplesTable
    return [
        [table.item(row, column).text() for column in range(table.columnCount)]
        for row in range(table.rowCount)
    ]


def choose_node(selector, node) -> None:
    """What a click on an entry of the selector does."""
    selector.setCurrentNode(node)
    selector.nodeActivated.emit(node)


def move_to(section, number: int, process_events) -> None:
    section.logic.showSlice(section.parameterNode.examples[section.row], number)
    process_events(lambda: f"slice {number} " in section.ui.sliceLabel.text)


def test_add_says_what_is_missing(section, ct, process_events):
    import slicer

    process_events(lambda: "Segment Editor" in section.ui.addButton.toolTip)
    assert not section.ui.addButton.enabled and not section.ui.removeButton.enabled
    assert "Segment Editor" in section.ui.hintLabel.text and section.ui.hintLabel.visible
    slicer.mrmlScene.RemoveNode(ct)
    process_events(lambda: section.ui.addButton.toolTip == "Load a volume first")


def test_add_takes_the_volume_in_view_and_its_segmentation(section, ct, labels, process_events):
    import slicer

    other = add_volume(np.zeros(SHAPE), placement(), "MR")
    add_segmentation(other, {"cyst": painted((3,), (2, 9), (2, 9))}, "MR labels")
    process_events(lambda: section.ui.addButton.toolTip == "Add CT with Labels to the table")
    section.ui.addButton.click()
    assert cells(section) == [["CT", "Labels", "liver, spleen", "3"]]
    assert section.parameterNode.examples[0].volume is ct
    # What is learnt from is offered for segmentation as well.
    assert list(section.parameterNode.applyVolumes) == [ct]
    section.ui.addButton.click()
    assert cells(section)[1] == ["MR", "MR labels", "cyst", "1"] and section.row == 1
    # A volume that is deleted is in the way of nothing.
    section.parameterNode.applyVolumes = [ct, other]
    slicer.mrmlScene.RemoveNode(other)
    assert section.logic._applyRequest().volumes == [ct]


def test_a_selected_row_can_be_removed(section, example, process_events):
    process_events(lambda: section.ui.removeButton.enabled)
    section.ui.removeButton.click()
    process_events(lambda: section.ui.hintLabel.visible)
    assert cells(section) == [] and len(section.parameterNode.examples) == 0
    assert not section.ui.exampleWidget.visible and not section.ui.sliceWidget.visible


def test_segments_are_ticked_and_one_stays(section, example, labels):
    table = section.ui.segmentsTable
    spleen = labels.GetSegmentation().GetSegmentIdBySegmentName("spleen")

    def press_space(row):
        table.setCurrentCell(row, 0)
        QTest.keyClick(table, Qt.Key.Key_Space)

    assert [table.item(row, 0).text() for row in range(2)] == ["liver", "spleen"]
    press_space(0)
    assert list(section.parameterNode.examples[0].segmentIDs) == [spleen]
    assert cells(section) == [["CT", "Labels", "spleen", "1"]]
    press_space(1)
    assert table.item(1, 0).checkState() == Qt.CheckState.Checked
    assert list(section.parameterNode.examples[0].segmentIDs) == [spleen]
    press_space(0)
    assert list(section.parameterNode.examples[0].segmentIDs) == []


def test_none_is_no_choice_for_an_example(section, example, ct, labels, process_events):
    move_to(section, 15, process_events)
    section.ui.emptyCheckBox.click()
    choose_node(section.ui.volumeSelector, None)
    choose_node(section.ui.segmentationSelector, None)
    assert section.ui.volumeSelector.currentNode() is ct
    assert section.ui.segmentationSelector.currentNode() is labels
    shown = section.parameterNode.examples[0]
    assert shown.volume is ct and shown.segmentation is labels and list(shown.empty) == [15]


def test_another_volume_or_orientation_forgets_the_marks(section, example, process_events):
    other = add_volume(np.zeros(SHAPE), placement((1, 1, 3)), "Follow-up")
    move_to(section, 15, process_events)
    section.ui.emptyCheckBox.click()
    assert list(section.parameterNode.examples[0].empty) == [15]
    choose_node(section.ui.volumeSelector, other)
    assert section.parameterNode.examples[0].volume is other
    assert list(section.parameterNode.examples[0].empty) == []
    section.ui.orientationComboBox.currentIndex = section.ui.orientationComboBox.findData("coronal")
    assert section.parameterNode.examples[0].orientation == "coronal"
    assert cells(section)[0][3] == str(len(range(4, 14)) + len(range(16, 22)))


def test_a_node_that_goes_away_does_not_bring_another_in(section, example, ct, process_events):
    import slicer

    add_volume(np.zeros(SHAPE), placement(), "Bystander")
    slicer.mrmlScene.RemoveNode(ct)
    process_events(lambda: cells(section)[0][0] == "removed")
    assert section.parameterNode.examples[0].volume is None
    assert "removed" in section.ui.problemLabel.text


def test_painting_is_seen_once_the_hand_rests(section, example, labels, ct, process_events):
    import slicer

    liver = labels.GetSegmentation().GetSegmentIdBySegmentName("liver")
    more = painted((*LIVER, 16), (4, 14), (4, 14)).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(more, labels, liver, ct)
    with within(3, "seeing what was painted"):
        process_events(lambda: cells(section)[0][3] == "4")
    assert ">16</a>" in section.ui.labelledLabel.text


def test_the_toggles_follow_the_view(section, example, process_events):
    ui = section.ui
    move_to(section, 4, process_events)
    assert ui.doneCheckBox.checkState() == Qt.CheckState.PartiallyChecked
    assert "liver alone" in ui.stateLabel.text and not ui.emptyCheckBox.enabled
    move_to(section, 8, process_events)
    assert (
        ui.doneCheckBox.checkState() == Qt.CheckState.Checked
        and ui.stateLabel.text == "Learnt from."
    )
    move_to(section, 6, process_events)
    assert not ui.doneCheckBox.enabled and "Nothing is painted" in ui.doneCheckBox.toolTip
    assert ui.emptyCheckBox.enabled and ui.stateLabel.text == "Not labelled."


def test_a_slice_in_part_is_done_or_not_or_in_part(section, example, process_events):
    ui, examples = section.ui, section.parameterNode.examples
    move_to(section, 4, process_events)
    ui.doneCheckBox.click()
    assert list(section.parameterNode.examples[0].complete) == [4]
    assert ui.stateLabel.text == "Learnt from; not here: spleen."
    ui.doneCheckBox.click()
    assert list(section.parameterNode.examples[0].unfinished) == [4]
    assert cells(section)[0][3] == "2" and "Not done" in ui.stateLabel.text
    ui.doneCheckBox.click()
    assert ui.doneCheckBox.checkState() == Qt.CheckState.PartiallyChecked
    marks = section.parameterNode.examples[0]
    assert (list(marks.complete), list(marks.unfinished)) == ([], []) and len(examples) == 1


def test_a_slice_is_empty_and_the_marks_can_be_cleared(section, example, process_events):
    ui = section.ui
    assert not ui.clearMarksButton.enabled and ui.clearMarksButton.toolTip == "No slice is marked"
    move_to(section, 17, process_events)
    ui.emptyCheckBox.click()
    assert list(section.parameterNode.examples[0].empty) == [17] and ui.emptyCheckBox.checked
    assert ui.stateLabel.text == "Known to be empty."
    ui.clearMarksButton.click()
    assert list(section.parameterNode.examples[0].empty) == [] and not ui.emptyCheckBox.checked


def test_begins_and_ends_at_the_slice_in_view(section, example, process_events):
    ui = section.ui
    move_to(section, 3, process_events)
    ui.beginsButton.click()
    move_to(section, 14, process_events)
    ui.endsButton.click()
    assert (section.parameterNode.examples[0].first, section.parameterNode.examples[0].last) == (
        3,
        14,
    )
    assert (
        ui.extentLabel.text == "slices 3 to 14"
        and ui.endsButton.checked
        and not ui.beginsButton.checked
    )
    move_to(section, 18, process_events)
    assert (
        ui.emptyCheckBox.checked and not ui.emptyCheckBox.enabled and "Beyond" in ui.stateLabel.text
    )
    move_to(section, 14, process_events)
    ui.endsButton.click()
    assert section.parameterNode.examples[0].last == -1


def test_a_contradiction_is_shown_in_words(section, example, process_events):
    move_to(section, 6, process_events)
    section.ui.beginsButton.click()
    process_events(lambda: "Slice 4" in section.ui.problemLabel.text)
    assert cells(section)[0][3].startswith("⚠")


def test_the_next_slice_is_suggested_and_shown(section, example, process_events):
    section.ui.suggestButton.click()
    suggested = section.logic.suggestSlice(0)
    process_events(lambda: f"slice {suggested} " in section.ui.sliceLabel.text)
    assert section.ui.suggestionLabel.text == f"Label slice {suggested} next, or mark it as empty."
    move_to(section, 8, process_events)
    assert not section.ui.suggestionLabel.visible


def test_a_labelled_slice_is_shown_by_its_link(section, example, process_events):
    section.ui.labelledLabel.linkActivated.emit("12")
    process_events(lambda: "Red view: axial slice 12 of 0 to 19" in section.ui.sliceLabel.text)


def test_no_view_along_the_slices_is_told(section, example, process_events):
    import slicer

    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.SetOrientationToSagittal()
    process_events(lambda: "No view shows axial slices" in section.ui.sliceLabel.text)
    for widget in (section.ui.doneCheckBox, section.ui.emptyCheckBox, section.ui.beginsButton):
        assert not widget.enabled and "No view shows axial slices" in widget.toolTip


def test_a_view_that_moves_costs_one_look(section, example, process_events, monkeypatch):
    looks = []
    look = section.logic.sliceInView
    monkeypatch.setattr(section.logic, "sliceInView", lambda each: looks.append(1) or look(each))
    for number in range(20):
        section.logic.showSlice(section.parameterNode.examples[0], number)
    process_events(lambda: "slice 19 " in section.ui.sliceLabel.text)
    assert 1 <= len(looks) <= 3


def test_the_panel_out_of_view_leaves_the_views_alone(
    panel, section, example, process_events, monkeypatch
):
    panel.exit()
    monkeypatch.setattr(section.logic, "sliceInView", lambda each: pytest.fail("looked"))
    section.logic.showSlice(section.logic.getParameterNode().examples[0], 2)
    end = time.monotonic() + 0.5
    process_events(lambda: time.monotonic() > end)
    monkeypatch.undo()
    panel.enter()
    process_events(lambda: "slice 2 " in section.ui.sliceLabel.text)


def test_a_closed_scene_leaves_an_empty_table(section, example, scene, process_events):
    scene.Clear(0)
    process_events(lambda: section.ui.hintLabel.visible)
    assert cells(section) == [] and section.parameterNode is not None


def test_names_are_shown_as_they_are_however_long(panel, section, example, labels, process_events):
    segment = labels.GetSegmentation().GetNthSegment(0)
    name = "<b>L" + 200 * "o" + "ng</b>"
    segment.SetName(name)
    process_events(lambda: name in section.ui.examplesTable.item(0, 2).text())
    move_to(section, 4, process_events)
    assert name in section.ui.stateLabel.text
    assert panel.parent.minimumSizeHint.width() <= 400
    segment.SetName("liver")


def test_marks_that_contradict_each_other_suggest_nothing(section, example, process_events):
    section.logic.setFirst(0, 12)
    section.logic.setLast(0, 4)
    section.update()
    section.ui.suggestButton.click()
    assert "extent begins at slice 12" in section.ui.suggestionLabel.text
