"""The section Correct: opened, clicked through and closed in the panel, with its keys."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from Testing.support.correction_workers import pretend, wait_until_idle
from Testing.support.model_files import write_model
from Testing.support.scene_builders import add_segmentation, add_volume, box, placement

SHAPE = (9, 60, 60)


@pytest.fixture(scope="module")
def window(slicer_app, module, layout_manager):
    from Testing.host.desktop import main_window

    window = main_window()
    yield window
    window.moduleSelector().selectModule("")
    window.hide()


@pytest.fixture
def nodes(module, scene, window):
    import slicer

    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    volume = add_volume(values, placement((1.0, 1.0, 3.0)))
    masks = {"liver": box(SHAPE, (3, 5), (10, 20), (10, 20)), "cyst": np.zeros(SHAPE, bool)}
    segmentation = add_segmentation(volume, masks)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume, segmentation


@pytest.fixture
def entered(window, module, nodes, process_events):
    """The module's widget, shown in the main window as Slicer does."""
    window.moduleSelector().selectModule(module.name)
    widget = module.widgetRepresentation().self()
    process_events(lambda: widget.panel.correct.ui.startButton.enabled is not None)
    yield widget
    widget.logic.correction.close()


@pytest.fixture
def section(entered, monkeypatch, process_events, nodes):
    from SAMFineTunePanel.scene.slice_view import showSlice

    pretend(monkeypatch)
    volume, segmentation = nodes
    showSlice(volume, "axial", 6)
    node = entered.logic.getParameterNode()
    node.correctVolume, node.correctSegmentation = volume, segmentation
    process_events(lambda: entered.panel.correct.ui.startButton.enabled)
    return entered.panel.correct


@pytest.fixture
def opened(section, process_events):
    section.ui.startButton.click()
    wait_until_idle(section.correction, process_events)
    process_events(lambda: section.ui.undoButton.toolTip)
    return section


def held(nodes, name: str) -> np.ndarray:
    import slicer

    volume, segmentation = nodes
    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0


def click(section, i: float, j: float) -> None:
    import qt
    import slicer
    import vtk
    from PySide6.QtTest import QTest

    widget = slicer.app.layoutManager().sliceWidget("Red")
    to_xy = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(widget.mrmlSliceNode().GetXYToRAS(), to_xy)
    correction = section.correction
    ras = correction.session.segment.rasOf((i, j, correction.session.number))
    x, y, _z, _w = to_xy.MultiplyPoint((*ras, 1.0))
    view = widget.sliceView()
    where = qt.QPoint(round(x), round(view.renderWindow().GetSize()[1] - 1 - y))
    QTest.mouseMove(view, where)
    QTest.mouseClick(view, qt.Qt.LeftButton, qt.Qt.NoModifier, where)


@pytest.fixture
def tuned_model(slicer_app):
    """The only tuned model, which may be called otherwise by the test."""
    folder = Path(os.environ["SAMFINETUNE_MODELS"])
    for file in folder.glob("*"):
        file.unlink()
    write_model(folder / "liver.safetensors")
    yield
    for file in folder.glob("*"):
        file.unlink()


def press(key: str, modifier: str = "NoModifier") -> None:
    """A key while a slice view has the keyboard."""
    import qt
    import slicer
    from PySide6.QtTest import QTest

    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    slicer.util.mainWindow().activateWindow()
    view.setFocus()
    slicer.app.processEvents()
    QTest.keyClick(view, getattr(qt.Qt, f"Key_{key}"), getattr(qt.Qt, modifier))


def test_what_is_missing_is_said(entered, nodes, process_events):
    ui = entered.panel.correct.ui
    node = entered.logic.getParameterNode()
    process_events(lambda: "segmentation first" in ui.startButton.toolTip)
    assert node.correctVolume is nodes[0] and not ui.startButton.enabled
    assert not ui.toolsWidget.visible and not ui.progressBar.visible
    node.correctVolume = None
    process_events(lambda: "volume" in ui.startButton.toolTip)
    ui.volumeSelector.setCurrentNode(nodes[0])
    ui.segmentationSelector.setCurrentNode(nodes[1])
    process_events(lambda: ui.startButton.enabled)
    names = [ui.segmentComboBox.itemText(index) for index in range(ui.segmentComboBox.count)]
    assert names == ["liver", "cyst"] and ui.modelComboBox.currentText == "starter, not tuned"
    assert node.correctSegment == nodes[1].GetSegmentation().GetNthSegmentID(0)


def test_click_accept_undo_with_buttons(opened, nodes, process_events):
    ui, correction = opened.ui, opened.correction
    assert ui.toolsWidget.visible and not ui.progressBar.visible and ui.positiveButton.checked
    assert ui.startButton.text == "Stop correcting" and not ui.volumeSelector.enabled
    assert "slice 6 of 0 to 8" in ui.sliceLabel.text and not ui.undoButton.enabled
    assert not ui.fineTuneButton.enabled and "Accept a slice" in ui.fineTuneButton.toolTip
    click(opened, 20, 30)
    process_events(lambda: correction.session.current.isFound)
    assert "50%" in ui.sliceLabel.text and ui.clearButton.enabled
    assert "positive point on slice 6" in ui.undoButton.toolTip
    ui.acceptButton.click()
    assert held(nodes, "liver")[6, 30, 20] and "Accepted slice 6" in ui.statusLabel.text
    assert "Accepted: 6" in ui.sliceLabel.text and ui.propagateButton.enabled
    assert not ui.betweenButton.enabled and "two slices" in ui.betweenButton.toolTip
    assert ui.fineTuneButton.enabled
    ui.undoButton.click()
    assert not held(nodes, "liver")[6].any() and ui.redoButton.enabled
    ui.redoButton.click()
    assert held(nodes, "liver")[6].any()
    ui.slicesSpinBox.value = 1
    ui.propagateButton.click()
    process_events(lambda: correction.session.propagated)
    assert sorted(correction.session.propagated) == [5, 7] and not ui.propagateButton.enabled
    ui.acceptButton.click()
    assert held(nodes, "liver")[5:8, 30, 20].all()
    ui.negativeButton.click()
    assert opened._markups.placing == "negative" and not ui.positiveButton.checked
    ui.boxButton.click()
    click(opened, 30, 30)
    click(opened, 40, 40)
    process_events(lambda: correction.session.current.prompts)
    assert correction.session.current.prompts[0].kind == "box" and ui.positiveButton.checked
    ui.clearButton.click()
    assert correction.session.current.prompts == ()
    ui.startButton.click()
    assert (
        not correction.session.isOpen and not ui.toolsWidget.visible and ui.volumeSelector.enabled
    )
    assert held(nodes, "liver")[6].any()


def test_keys_work_over_the_slice_views_while_a_session_is_open(
    opened, nodes, process_events, window, module
):
    import slicer

    correction = opened.correction
    press("X")
    assert opened._markups.placing == "negative"
    press("B")
    assert opened._markups.placing == "box"
    press("P")
    assert opened._markups.placing == "negative"
    press("X")
    click(opened, 20, 30)
    process_events(lambda: correction.session.current.isFound)
    press("Return")
    assert correction.session.accepted == {6} and held(nodes, "liver")[6].any()
    press("Z", "ControlModifier")
    assert not held(nodes, "liver")[6].any()
    press("Y", "ControlModifier")
    assert held(nodes, "liver")[6].any()
    press("N")
    assert "Only a tuned model" in opened.ui.errorLabel.text
    press("Enter")
    assert opened.ui.errorLabel.text == "" or not opened.ui.errorLabel.visible
    # Elsewhere they are somebody else's.
    module.widgetRepresentation().exit()
    assert not opened._keys.areOn and correction.session.isOpen
    before = len(correction.session.accepted)
    press("Z", "ControlModifier")
    assert (
        len(correction.session.accepted) == before and slicer.util.getNodes("Proposed mask") == {}
    )
    module.widgetRepresentation().enter()
    process_events(lambda: opened._keys.areOn)
    opened.ui.startButton.click()
    assert not opened._keys.areOn
    press("P")
    assert opened._markups is None


def test_b_draws_and_other_ways_lead_to_the_previous_slice(opened, process_events):
    import slicer

    correction = opened.correction
    press("B")
    assert opened._markups.placing == "box" and correction.session.number == 6
    interactor = slicer.app.layoutManager().sliceWidget("Red").sliceView().interactor()
    for number, key in ((5, "Left"), (4, "Down"), (5, "Right")):
        interactor.SetKeySym(key)
        interactor.InvokeEvent("KeyPressEvent")
        process_events(lambda number=number: correction.session.number == number)
    interactor.InvokeEvent("MouseWheelBackwardEvent")
    process_events(lambda: correction.session.number == 4)
    assert "mouse wheel or the left arrow key" in opened.ui.boxButton.toolTip


def test_keys_leave_those_alone_who_type(opened, window, process_events):
    import qt
    from PySide6.QtTest import QTest

    opened.onAccept()
    refused = opened.ui.errorLabel.text
    assert "no mask to accept" in refused and opened.ui.errorLabel.visible
    opened._complain("")
    window.activateWindow()
    spin, told = opened.ui.slicesSpinBox, []
    spin.connect("editingFinished()", lambda: told.append(spin.value))
    spin.setFocus()
    process_events(lambda: spin.hasFocus())
    QTest.keyClick(spin, qt.Qt.Key_A, qt.Qt.ControlModifier)
    QTest.keyClicks(spin, "23")
    QTest.keyClick(spin, qt.Qt.Key_Return)
    assert told == [23] and opened.ui.errorLabel.text == ""
    press("Return")
    assert opened.ui.errorLabel.text == refused


def test_a_name_is_typed_into_a_table_while_a_correction_is_open(
    opened, entered, window, tuned_model, process_events
):
    import qt
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QLineEdit

    models = entered.panel.models
    models.filesChanged()
    process_events(lambda: models.ui.modelsTable.rowCount == 1)
    models.ui.collapsibleButton.collapsed = False
    models.ui.modelsTable.selectRow(0)
    window.activateWindow()
    models.ui.renameButton.click()
    (editor,) = models.ui.modelsTable.findChildren(QLineEdit)
    process_events(lambda: editor.hasFocus())
    editor.selectAll()
    QTest.keyClicks(editor, "Pb x")
    QTest.keyClick(editor, qt.Qt.Key_Return)
    process_events(lambda: models.ui.modelsTable.item(0, 0).text() == "Pb x")
    assert [model.name for model in entered.logic.models()] == ["Pb x"]
    assert opened.ui.errorLabel.text == ""
    press("B")
    assert opened._markups.placing == "box"
    models.ui.collapsibleButton.collapsed = True


def test_keys_go_with_their_window(slicer_app, monkeypatch, process_events):
    import qt
    import slicer
    from PySide6.QtTest import QTest
    from SAMFineTunePanel.correction_display.correction_keys import CorrectionKeys

    window, pressed = qt.QWidget(), []
    button, edit = qt.QPushButton(window), qt.QLineEdit(window)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: window)
    keys = CorrectionKeys({"Return": lambda: pressed.append(True)}, button)
    window.show()
    window.activateWindow()
    edit.setFocus()
    process_events(edit.hasFocus)
    # Who types as the keys come is left alone, too.
    keys.turn(True)
    QTest.keyClick(edit, qt.Qt.Key_Return)
    assert pressed == []
    button.setFocus()
    QTest.keyClick(button, qt.Qt.Key_Return)
    assert pressed == [True]
    edit.setFocus()
    window.delete()
    process_events()
    assert not keys.areOn
    keys.turn(False)


def settle_panel(process_events) -> None:
    """Until the panel has brought itself up to date, which it does a moment after a change."""
    end = time.monotonic() + 0.2
    process_events(lambda: time.monotonic() > end, 2)


def test_accepted_slices_are_learnt_from(opened, nodes, entered, process_events):
    correction, logic = opened.correction, entered.logic
    assert not opened.ui.examplesButton.enabled
    click(opened, 20, 30)
    process_events(lambda: correction.session.current.isFound)
    opened.ui.acceptButton.click()
    opened.ui.examplesButton.click()
    examples = logic.getParameterNode().examples
    assert len(examples) == 1
    settle_panel(process_events)
    assert "learnt from: 6" in opened.ui.statusLabel.text
    slices = logic.exampleSlices(examples[0])
    # What was painted before and not accepted may be what a model has found.
    assert slices.labelled == [6] and slices.found == [3, 4, 6]
    correction.look(3)
    opened.ui.acceptButton.click()
    correction.look(1)
    correction.addPoint(correction.session.segment.rasOf((30, 30, 1)), positive=False)
    wait_until_idle(correction, process_events)
    opened.ui.acceptButton.click()
    opened.ui.examplesButton.click()
    slices = logic.exampleSlices(logic.getParameterNode().examples[0])
    assert slices.labelled == [3, 6] and slices.empty == (1,)
    started = []
    logic.startFineTune, keep = lambda: started.append(True), logic.startFineTune
    try:
        opened.ui.fineTuneButton.click()
    finally:
        logic.startFineTune = keep
    assert started and logic.getParameterNode().startFrom == ""
    settle_panel(process_events)
    assert "model that it began with" in opened.ui.statusLabel.text


def test_an_example_of_several_segments_does_not_call_a_slice_empty(
    opened, nodes, entered, process_events
):
    correction, logic = opened.correction, entered.logic
    logic.addExample(*nodes, orientation="axial")
    correction.look(1)
    correction.addPoint(correction.session.segment.rasOf((30, 30, 1)), positive=False)
    wait_until_idle(correction, process_events)
    opened.ui.acceptButton.click()
    opened.ui.examplesButton.click()
    (example,) = logic.getParameterNode().examples
    slices = logic.exampleSlices(example)
    # The cyst may be there: nobody has said that it is not.
    assert slices.empty == () and slices.labelled == [3, 4]


def test_a_model_that_was_tuned_is_offered_and_used(
    section, entered, nodes, process_events, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path))
    write_model(tmp_path / "tuned.safetensors", ["model"])
    nodes[1].GetSegmentation().GetNthSegment(0).SetName("model")
    section.filesChanged()
    ui, correction = section.ui, section.correction
    process_events(lambda: ui.modelComboBox.count == 2)
    ui.modelComboBox.currentIndex = 1
    ui.startButton.click()
    wait_until_idle(correction, process_events)
    assert correction.session.model.name == "tuned" and correction.session.preview[6].sum() == 9
    process_events(lambda: ui.nextButton.enabled)
    press("N")
    process_events(lambda: correction.session.number == 8)
    assert "least certain" in ui.statusLabel.text
    ui.startComboBox.currentIndex = 3
    assert correction.session.preview == {}


def test_what_hinders_the_start_is_said_in_the_panels_words(
    section, process_events, tmp_path, monkeypatch
):
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
    section.ui.startButton.click()
    assert not section.correction.session.isOpen
    words = section.ui.errorLabel.text
    assert "Cannot make the job folder" in words and "--job" not in words
    assert words.endswith("Free some space, or ask for the right to write there.")
    monkeypatch.undo()


def test_closing_the_scene_or_deleting_nodes_closes_the_section(
    opened, nodes, scene, process_events
):
    import slicer

    slicer.mrmlScene.RemoveNode(nodes[1])
    process_events(lambda: not opened.correction.session.isOpen)
    assert "was removed" in opened.ui.errorLabel.text and not opened.ui.toolsWidget.visible
    assert not opened._keys.areOn and slicer.util.getNodes("Positive points") == {}
    scene.Clear(0)
    process_events(lambda: "volume" in opened.ui.startButton.toolTip)


def test_a_scene_that_is_added_leaves_a_correction_open(opened, nodes, scene, process_events):
    ui, correction = opened.ui, opened.correction
    scene.StartState(scene.ImportState)
    scene.EndState(scene.ImportState)
    click(opened, 20, 30)
    process_events(lambda: correction.session.current.isFound)
    assert ui.startButton.text == "Stop correcting" and ui.toolsWidget.visible
    assert ui.volumeSelector.currentNode() is nodes[0] and opened._keys.areOn
    assert ui.segmentationSelector.currentNode() is nodes[1]
    ui.acceptButton.click()
    assert held(nodes, "liver")[6, 30, 20]
    ui.startButton.click()
    process_events(lambda: ui.startButton.enabled and not correction.session.isOpen)


def test_a_worker_that_dies_is_told_in_the_section(section, monkeypatch, process_events):
    pretend(monkeypatch, "die_always")
    section.ui.startButton.click()
    wait_until_idle(section.correction, process_events)
    click(section, 20, 30)
    process_events(lambda: not section.correction.session.isOpen)
    assert "RuntimeError: pretended" in section.ui.errorLabel.text
    process_events(lambda: section.ui.startButton.enabled)
    pretend(monkeypatch)
    section.ui.startButton.click()
    wait_until_idle(section.correction, process_events)
    assert section.correction.session.isOpen and section.ui.errorLabel.text == ""


def test_choices_are_saved_with_the_scene(section, entered, process_events):
    section.ui.startComboBox.currentIndex = 1
    section.ui.slicesSpinBox.value = 0
    section.ui.segmentComboBox.currentIndex = 1
    node = entered.logic.getParameterNode()
    assert (node.correctStart, node.propagateSlices) == ("segment", 0)
    assert node.correctSegment == node.correctSegmentation.GetSegmentation().GetNthSegmentID(1)
    assert section.ui.slicesSpinBox.text == "to the end"
