"""The tutorial, by clicks: the sample head, five labelled slices, a tuned model, its ventricles.

With TUTORIAL_PICTURES naming a folder, the README's pictures are written on the way. A click that
cancels a real fine-tune is in test_responsiveness.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

pytestmark = pytest.mark.usefixtures("module", "scene")

# Pictures show what the preset gives. Otherwise fewer steps on smaller images are enough.
IS_WITH_PICTURES = bool(os.environ.get("TUTORIAL_PICTURES"))
STEPS = 0 if IS_WITH_PICTURES else 4


class Desktop:
    """A person before Slicer: sees the panel and the views, clicks, waits."""

    def __init__(self, module, process_events):
        from Testing.host.desktop import main_window

        self.window = main_window(module)
        self.panel = module.widgetRepresentation().self().panel
        self.wait = process_events

    def click(self, button) -> None:
        self.wait(lambda: button.enabled)
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def scroll_to(self, section) -> None:
        """Bring the head of a section to the top of the panel."""
        from Testing.host.desktop import settle

        settle()
        area = section.widget.parent()
        while area.metaObject().className() != "QScrollArea":
            area = area.parent()
        top = section.widget.mapTo(area.widget(), section.widget.rect.topLeft()).y()
        area.verticalScrollBar().setValue(top)

    def picture(self, name: str, section) -> None:
        folder = os.environ.get("TUTORIAL_PICTURES")
        if folder:
            self.scroll_to(section)
            self.window.screenshot(Path(folder, f"{name}.png"))


@pytest.fixture
def desktop(module, scene, process_events):
    from SAMFineTunePanel.module_state import theModuleState

    theModuleState().hardware.found = None
    desktop = Desktop(module, process_events)
    yield desktop
    job = desktop.panel._logic.job
    if job is not None and not job.isFinished:
        job.cancel()
        process_events(lambda: job.isFinished)


def truth() -> np.ndarray:
    from SAMFineTuneLib.demo.sample_head import load_sample_head

    return load_sample_head().truth.array > 0


def test_from_the_sample_to_a_segmented_head(desktop):
    import slicer
    from SAMFineTunePanel.scene.sample_data import loadSampleHead

    panel = desktop.panel
    examples, model, tune, apply, models = (
        panel.examples.ui,
        panel.model.ui,
        panel.fineTune.ui,
        panel.apply.ui,
        panel.models.ui,
    )

    # The example.
    head, labels = loadSampleHead()
    desktop.wait(lambda: examples.addButton.enabled)
    assert not tune.startButton.enabled and "Add an example" in tune.startButton.toolTip
    desktop.click(examples.addButton)
    desktop.wait(lambda: examples.examplesTable.rowCount == 1)
    assert examples.examplesTable.item(0, 3).text() == "5"
    for number, button in ((68, examples.beginsButton), (100, examples.endsButton)):
        examples.labelledLabel.linkActivated.emit(str(number))
        desktop.wait(lambda number=number: f"axial slice {number} " in examples.sliceLabel.text)
        desktop.click(button)
    desktop.wait(lambda: "68" in examples.extentLabel.text and "100" in examples.extentLabel.text)
    desktop.click(examples.suggestButton)
    desktop.wait(lambda: "axial slice" in examples.sliceLabel.text)
    desktop.picture("examples", panel.examples)

    # The model.
    desktop.wait(lambda: panel._logic.hardware is not None)
    model.advancedGroupBox.collapsed = False
    model.stepsSpinBox.value = STEPS
    if not IS_WITH_PICTURES:
        model.inputSizeComboBox.setCurrentIndex(model.inputSizeComboBox.findData(256))
    desktop.picture("model", panel.model)
    model.advancedGroupBox.collapsed = True
    tune.modelNameEdit.text = "ventricles"

    # Fine-tune to the end; everything is shown while it runs.
    desktop.click(tune.startButton)
    job = panel._logic.job
    assert not tune.startButton.enabled and "at work" in tune.startButton.toolTip
    desktop.click(tune.chartButton)
    enough = 10 if os.environ.get("TUTORIAL_PICTURES") else 2
    desktop.wait(lambda: len(job.validations) >= enough and tune.previewLabel.visible, 300)
    assert tune.progressBar.value > 0 and "left" in tune.statusLabel.text
    assert not tune.previewLabel.pixmap.isNull()
    desktop.picture("fine-tune", panel.fineTune)
    desktop.wait(lambda: job.isFinished, 400)
    assert job.state == "done", job.errorMessage
    job_steps = job.steps
    [series] = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
        if "oss" in node.GetName()
    ]
    assert series.GetTableNode().GetTable().GetNumberOfRows() == len(job.losses) > 3

    # Apply.
    assert panel._parameterNode.applyModel == "ventricles"
    assert panel._parameterNode.correctModel == "ventricles"
    apply.show3DCheckBox.checked = True
    labels.GetDisplayNode().SetVisibility(False)
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    panel._logic.showSlice(panel._parameterNode.examples[0], 80)
    before = red_view()
    desktop.click(apply.applyButton)
    job = panel._logic.job
    desktop.wait(lambda: job.isFinished, 240)
    assert job.state == "done", job.errorMessage
    [segmentation] = job.result
    # Slice 80 was not labelled; in its view the segment is where it was found.
    changed = np.abs(red_view().astype(int) - before).max(axis=2) > 20
    assert 200 < changed.sum() < 0.2 * changed.size
    found = voxels(segmentation, "lateral ventricles", head)
    # The labelled slices stay as they were drawn, and beyond the ends nothing is found.
    drawn = voxels(labels, "lateral ventricles", head)
    assert np.array_equal(found[[68, 76, 84, 92, 100]], drawn[[68, 76, 84, 92, 100]])
    assert not found[:68].any() and not found[101:].any()
    overlap = 2 * (found & truth()).sum() / (found.sum() + truth().sum())
    print(f"DSC on the whole head after {job_steps} steps: {overlap:.3f}")
    assert overlap > 0.7
    panel._logic.showSlice(panel._parameterNode.examples[0], 84)
    slicer.util.resetThreeDViews()
    examples.examplesTable.setCurrentCell(0, 0)
    desktop.picture("apply", panel.apply)

    # Models.
    models.collapsibleButton.collapsed = False
    desktop.wait(lambda: models.modelsTable.rowCount == 1)
    models.modelsTable.setCurrentCell(0, 0)
    desktop.picture("models", panel.models)

    # Take it back.
    desktop.click(apply.undoButton)
    desktop.wait(lambda: not slicer.mrmlScene.IsNodePresent(segmentation))
    assert slicer.mrmlScene.IsNodePresent(labels)


def red_view() -> np.ndarray:
    """What the red slice view shows, (rows, columns, red green blue)."""
    import slicer
    from PySide6.QtGui import QImage

    from Testing.host.desktop import settle

    settle()
    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    image = view.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), -1)
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def voxels(segmentation, name: str, volume) -> np.ndarray:
    import slicer

    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0
