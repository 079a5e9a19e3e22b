"""The panel while scenes are closed and opened and volumes come: what it offers and knows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from Testing.support.model_files import write_model
from Testing.support.scene_builders import add_segmentation, add_volume, box

HARDWARE = {
    "devices": [{"name": "cpu", "description": "8 processors", "memory_bytes": 32_000_000_000}],
    "preset": "fast",
    "why": "there is no GPU",
}


@pytest.fixture
def models(slicer_app) -> Path:
    """Two tuned models on this computer; the newer one is "liver"."""
    folder = Path(os.environ["SAMFINETUNE_MODELS"])
    for file in folder.glob("*"):
        file.unlink()
    write_model(folder / "kidney.safetensors", ("left",), None, "2026-01-02T10:00:00+00:00")
    write_model(folder / "liver.safetensors")
    return folder


@pytest.fixture
def apply(models, panel, process_events):
    panel.exit()
    panel.enter()
    process_events(lambda: panel.panel.apply.ui.modelComboBox.currentText.startswith("liver"))
    return panel.panel.apply.ui


def image(name: str):
    return add_volume(np.zeros((4, 6, 8), np.int16), np.eye(4), name)


def ticked(table) -> list[str]:
    from PySide6.QtCore import Qt

    items = [table.item(row, 0) for row in range(table.rowCount)]
    return [item.text() for item in items if item.checkState() == Qt.CheckState.Checked]


@pytest.mark.parametrize("times", [1, 2])
def test_a_closed_scene_leaves_the_tuned_models(panel, apply, scene, process_events, times):
    for _ in range(times):
        scene.Clear(0)
    node = panel.logic.getParameterNode()
    process_events(lambda: node.applyModel == "liver")
    assert apply.modelComboBox.currentText.startswith("liver")
    volume = image("CT")
    process_events(lambda: list(node.applyVolumes) == [volume])
    process_events(lambda: apply.applyButton.enabled)


@pytest.mark.parametrize("named", ["", "deleted meanwhile"])
def test_an_opened_scene_has_a_tuned_model(
    panel, apply, scene, tmp_path, process_events, named, models
):
    import slicer

    image("CT")
    panel.exit()
    panel.logic.getParameterNode().applyModel = named
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    panel.enter()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": True})
    process_events(lambda: panel.logic.getParameterNode().applyModel == "liver")
    process_events(lambda: apply.applyButton.enabled)
    assert apply.modelComboBox.currentText.startswith("liver")


def test_an_opened_scene_shows_models_that_came_meanwhile(
    panel, apply, scene, tmp_path, process_events, models
):
    import slicer

    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    write_model(models / "spleen.safetensors", ("spleen",), 0.9, "2027-01-01T10:00:00+00:00")
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": True})
    shown = panel.panel.correct.ui.modelComboBox
    process_events(lambda: shown.findText("spleen") >= 0)
    assert apply.modelComboBox.count == 3


def test_what_the_computer_has_is_known_in_the_next_scene(
    panel, scene, process_events, monkeypatch
):
    monkeypatch.setattr(panel.logic._state.hardware, "found", HARDWARE)
    model = panel.panel.model.ui
    panel.panel.updateSoon()
    for _ in range(2):
        process_events(lambda: "fast" in model.presetComboBox.currentText)
        assert model.presetTextLabel.text.startswith("There is no GPU.")
        assert model.deviceComboBox.findData("cpu") >= 0
        scene.Clear(0)
    storage = panel.panel.models.ui.storageLabel
    assert storage.text.startswith("On the disk")


def test_a_volume_that_is_loaded_while_the_panel_is_open_is_offered(panel, scene, process_events):
    import slicer

    correct, apply = panel.panel.correct.ui, panel.panel.apply.ui
    assert correct.volumeSelector.currentNode() is None and ticked(apply.volumesTable) == []
    first = image("first")
    process_events(lambda: correct.volumeSelector.currentNode() is first)
    assert ticked(apply.volumesTable) == ["first"]
    # A choice stays.
    other = image("other")
    slicer.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(other.GetID())
    process_events(lambda: apply.volumesTable.rowCount == 2)
    assert correct.volumeSelector.currentNode() is first
    assert ticked(apply.volumesTable) == ["first"]
    # Its segmentation makes an example of it.
    add_segmentation(other, {"liver": box((4, 6, 8), (1, 2), (1, 4), (1, 5))})
    process_events(lambda: "other" in panel.panel.examples.ui.addButton.toolTip)


def test_no_volume_is_a_choice_too(panel, scene, process_events):
    correct, apply = panel.panel.correct.ui, panel.panel.apply.ui
    volume = image("CT")
    process_events(lambda: correct.volumeSelector.currentNode() is volume)
    node = panel.logic.getParameterNode()
    node.correctVolume, node.applyVolumes = None, []
    add_segmentation(volume, {"liver": box((4, 6, 8), (1, 2), (1, 4), (1, 5))})
    process_events(lambda: panel.panel.examples.ui.addButton.enabled)
    assert node.correctVolume is None and ticked(apply.volumesTable) == []
