"""Volumes without labels in the section Fine-tune: the list, the boxes, and their job."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt

from Testing.support.scene_builders import (
    add_segmentation,
    add_transform,
    add_volume,
    box,
    placement,
)
from Testing.support.sequence_scenes import add_sequence, frame_voxels

SHAPE = (8, 16, 20)
MASK = box(SHAPE, (3, 4), (4, 9), (4, 9)) | box(SHAPE, (5, 6), (4, 9), (4, 9))

# Far more steps than a test waits for.
ENDLESS = 100_000


def image(name: str, seed: int = 0, shape=SHAPE):
    voxels = np.random.default_rng(seed).integers(0, 99, shape).astype(np.int16)
    return add_volume(voxels, placement((1, 1, 2)), name)


@pytest.fixture
def volumes(panel):
    """The volume of an example, and two others."""
    labelled, first, second = image("CT"), image("first", 1), image("second", 2)
    panel.logic.addExample(labelled, add_segmentation(labelled, {"liver": MASK}))
    return labelled, first, second


@pytest.fixture
def section(panel, volumes, process_events):
    """The section Fine-tune, with the volumes in its list."""
    ui = panel.panel.fineTune.ui
    ui.unlabelledGroupBox.collapsed = False
    process_events(lambda: ui.unlabelledTable.rowCount == 3)
    yield panel.panel.fineTune
    ui.unlabelledGroupBox.collapsed = True


def items(table) -> dict:
    return {table.item(row, 0).text(): table.item(row, 0) for row in range(table.rowCount)}


def ticked(table) -> list[str]:
    return [
        name for name, item in items(table).items() if item.checkState() == Qt.CheckState.Checked
    ]


def shown(section) -> set:
    """Which of the widgets that come and go are to be seen."""
    ui = section.ui
    parts = (ui.unlabelledTable, ui.noUnlabelledLabel, ui.unlabelledProblemLabel)
    return {each for each in parts if each.isVisibleTo(section.widget)}


def tick(table, name: str, on: bool = True) -> None:
    items(table)[name].setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)


def written(job, process_events) -> dict:
    """job.json, once it is written; its files are there as long as the job runs."""
    file = Path(job.folder) / "job.json"
    process_events(lambda: file.is_file() or job.isFinished)
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture
def worker(pretended_worker, logic, process_events):
    """Jobs begin, learn nothing, and are cancelled in the end."""
    yield
    logic.job.cancel()
    process_events(lambda: logic.job.isFinished)


def asked(panel) -> dict:
    return panel.logic._finetuneRequest().settings


def test_volumes_are_added_and_removed_by_ticks(panel, section, volumes, process_events):
    _labelled, first, second = volumes
    ui, node = section.ui, section.parameterNode
    assert ticked(ui.unlabelledTable) == [] and list(node.unlabelledVolumes) == []
    tick(ui.unlabelledTable, "second")
    tick(ui.unlabelledTable, "first")
    assert list(node.unlabelledVolumes) == [first, second]
    tick(ui.unlabelledTable, "second", on=False)
    assert panel.logic._finetuneRequest().unlabelled == [first]
    # What another part of the program chooses is shown.
    node.unlabelledVolumes = [second]
    process_events(lambda: ticked(ui.unlabelledTable) == ["second"])


def test_a_group_that_is_unfolded_shows_what_is_to_be_seen(section):
    group = section.ui.unlabelledGroupBox
    for _ in range(2):
        group.collapsed = True
        assert shown(section) == set()
        group.collapsed = False
        assert shown(section) == {section.ui.unlabelledTable}


def test_the_list_follows_apply_and_stays_filled_afterwards(
    panel, section, volumes, process_events
):
    labelled, first, _second = volumes
    ui, node = section.ui, section.parameterNode
    node.applyVolumes = [first]
    tick(ui.unlabelledTable, "second")
    ui.unlabelledOfApplyCheckBox.click()
    process_events(lambda: ticked(ui.unlabelledTable) == ["first"])
    assert not ui.unlabelledTable.enabled and "under Apply" in ui.unlabelledTable.toolTip
    tick(panel.panel.apply.ui.volumesTable, "CT")
    process_events(lambda: ticked(ui.unlabelledTable) == ["CT", "first"])
    assert panel.logic._finetuneRequest().unlabelled == [labelled, first]
    ui.unlabelledOfApplyCheckBox.click()
    process_events(lambda: ui.unlabelledTable.enabled)
    assert ticked(ui.unlabelledTable) == ["CT", "first"]
    tick(panel.panel.apply.ui.volumesTable, "second")
    assert panel.logic._finetuneRequest().unlabelled == [labelled, first]


def test_a_deleted_volume_leaves_the_list(panel, section, volumes, scene, process_events):
    _labelled, first, second = volumes
    ui, node = section.ui, section.parameterNode
    node.unlabelledVolumes = [first, second]
    process_events(lambda: ticked(ui.unlabelledTable) == ["first", "second"])
    scene.RemoveNode(first)
    process_events(lambda: ui.unlabelledTable.rowCount == 2)
    assert ticked(ui.unlabelledTable) == ["second"]
    assert panel.logic._finetuneRequest().unlabelled == [second]
    assert panel.logic.problemWithFineTune() == ""


def test_a_closed_scene_leaves_nothing_behind(panel, section, volumes, scene, process_events):
    ui = section.ui
    tick(ui.unlabelledTable, "first")
    section.parameterNode.unlabelledOfApply = True
    ui.otherSlicesCheckBox.click()
    scene.Clear(0)
    process_events(lambda: ui.unlabelledTable.rowCount == 0)
    assert shown(section) == {ui.noUnlabelledLabel}
    process_events(lambda: not ui.unlabelledOfApplyCheckBox.checked)
    assert not ui.otherSlicesCheckBox.checked
    image("another")
    process_events(lambda: ui.unlabelledTable.rowCount == 1)
    assert ticked(ui.unlabelledTable) == [] and panel.logic._finetuneRequest().unlabelled == []


@pytest.mark.parametrize("name", ["scene.mrml", "scene.mrb"])
def test_a_saved_scene_has_its_list(panel, section, scene, tmp_path, process_events, name):
    import slicer

    ui = section.ui
    tick(ui.unlabelledTable, "second")
    ui.otherSlicesCheckBox.click()
    path = str(tmp_path / name)
    assert slicer.util.saveScene(path)
    scene.Clear(0)
    process_events(lambda: ui.unlabelledTable.rowCount == 0)
    slicer.util.loadScene(path)
    process_events(lambda: ticked(ui.unlabelledTable) == ["second"])
    assert ui.otherSlicesCheckBox.checked and not ui.unlabelledOfApplyCheckBox.checked
    (chosen,) = panel.logic._finetuneRequest().unlabelled
    assert chosen.GetName() == "second" and asked(panel)["unlabelled_examples"] is True


def test_a_scene_of_an_older_version_learns_from_labels_alone(
    panel, section, scene, tmp_path, process_events
):
    import slicer

    path = tmp_path / "scene.mrml"
    assert slicer.util.saveScene(str(path))
    text = path.read_text(encoding="utf-8")
    older = re.sub(r'parameter\d+= "(unlabelled|otherSlices)[^"]*"', "", text)
    assert len(older) < len(text) and "unlabelled" not in older and "otherSlices" not in older
    path.write_text(older, encoding="utf-8")
    slicer.util.loadScene(str(path), {"clear": True})
    process_events(lambda: section.ui.unlabelledTable.rowCount == 3)
    request = panel.logic._finetuneRequest()
    assert len(request.examples) == 1 and request.unlabelled == []
    assert "unlabelled_examples" not in request.settings


def test_other_slices_are_learnt_from_as_the_preset_or_the_user_says(
    panel, section, process_events
):
    box_, node = section.ui.otherSlicesCheckBox, section.parameterNode
    assert not box_.checked and "unlabelled_examples" not in asked(panel)
    node.preset = "thorough"
    process_events(lambda: box_.checked)
    assert "unlabelled_examples" not in asked(panel), "the preset says so itself"
    box_.click()
    assert asked(panel)["unlabelled_examples"] is False
    node.preset = "laptop"
    section.update()
    box_.click()
    assert box_.checked and asked(panel)["unlabelled_examples"] is True
    box_.click()
    assert not box_.checked and "unlabelled_examples" not in asked(panel)


def test_the_job_has_the_volumes_that_are_ticked_and_no_others(
    worker, panel, section, volumes, process_events
):
    from SAMFineTunePanel.scene.voxel_grid import gridOf

    from SAMFineTuneLib.volumes import read_volume

    second = volumes[2]
    turned = placement((1, 1, 1))
    turned[:3, :3] = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
    turned[:3, 3] = [5, 6, 7]
    add_transform(turned, second)
    for name in ("CT", "second"):
        tick(section.ui.unlabelledTable, name)
    section.parameterNode.steps = ENDLESS
    section.parameterNode.randomWeights = True
    fields = written(panel.logic.startFineTune(), process_events)
    own, other = map(Path, fields["unlabelled"])
    assert fields["unlabelled_channels"] == []
    # The example's volume is written once, under the name by which the worker tells of it.
    assert str(own) == fields["examples"][0]["volume"] and own.name == "CT.nrrd"
    assert other.name == "second.nrrd"
    files = {each.name for each in other.parent.parent.rglob("*.nrrd")}
    assert files == {"CT.nrrd", "second.nrrd", "segmentation0.seg.nrrd"}
    read = read_volume(other)
    import slicer

    assert np.array_equal(read.array, slicer.util.arrayFromVolume(second))
    # Where it lies in the world, under its transform.
    assert np.allclose(np.array(read.geometry.origin) * [-1, -1, 1], gridOf(second).ijkToRas[:3, 3])


def test_a_volume_that_shows_a_sequence_is_written_at_its_frame(
    worker, panel, section, volumes, process_events
):
    from SAMFineTuneLib.volumes import read_volume

    proxy, browser = add_sequence()
    browser.SetSelectedItemNumber(1)
    section.parameterNode.unlabelledVolumes = [proxy]
    section.parameterNode.randomWeights, section.parameterNode.steps = True, ENDLESS
    fields = written(panel.logic.startFineTune(), process_events)
    (path,) = fields["unlabelled"]
    assert Path(path).name == "Heart.nrrd"
    assert np.array_equal(read_volume(Path(path)).array, frame_voxels(1))


def test_a_warped_volume_is_told_before_anything_starts(panel, section, volumes, process_events):
    _labelled, first, _second = volumes
    sheared = placement()
    sheared[0, 1] = 0.5
    add_transform(sheared, first)
    tick(section.ui.unlabelledTable, "first")
    process_events(lambda: "first is sheared" in section.ui.unlabelledProblemLabel.text)
    assert "first is sheared" in section.ui.startButton.toolTip
    assert not section.ui.startButton.enabled
    tick(section.ui.unlabelledTable, "first", on=False)
    process_events(lambda: section.ui.startButton.enabled)
    assert shown(section) == {section.ui.unlabelledTable}


def test_cases_of_several_images_take_those_that_suggest_themselves(
    worker, panel, section, volumes, process_events
):
    labelled, first, second = volumes
    labelled.SetName("A T1")
    first.SetName("B T1")
    second.SetName("C T1")
    flair, other_flair = image("A FLAIR", 3), image("B FLAIR", 4)
    node = section.parameterNode
    node.examples[0].channels = [flair]
    node.randomWeights, node.steps = True, ENDLESS
    node.unlabelledVolumes = [second]
    # By their names, A's and B's are as likely as each other.
    lacking = "For C T1, which has no labels, no image suggests itself as flair"
    assert lacking in panel.logic.problemWithFineTune()
    node.unlabelledVolumes = [first]
    assert panel.logic.problemWithFineTune() == ""
    fields = written(panel.logic.startFineTune(), process_events)
    assert [Path(each).name for each in fields["unlabelled"]] == ["B_T1.nrrd"]
    assert [[Path(each).name for each in case] for case in fields["unlabelled_channels"]] == [
        ["B_FLAIR.nrrd"]
    ]
    # Those chosen under Apply come first.
    node.applyVolumes, node.applyChannels = [second], [other_flair]
    node.unlabelledOfApply = True
    assert panel.logic.problemWithFineTune() == ""


def test_the_choices_of_a_running_job_stay_free_for_the_next(
    worker, panel, section, volumes, process_events
):
    node = section.parameterNode
    node.randomWeights, node.steps = True, ENDLESS
    job = panel.logic.startFineTune()
    process_events(lambda: job.step > 0)
    section.update()
    # As the choices of the section Model are.
    assert panel.panel.model.ui.presetComboBox.enabled
    assert section.ui.unlabelledTable.enabled and section.ui.otherSlicesCheckBox.enabled
    tick(section.ui.unlabelledTable, "first")
    fields = json.loads((Path(job.folder) / "job.json").read_text(encoding="utf-8"))
    assert "first" not in str(fields.get("unlabelled"))


def test_the_console_names_volumes_without_labels(worker, logic, process_events):
    labelled, other = image("CT"), image("other", 1)
    labels = add_segmentation(labelled, {"liver": MASK})
    settings = {
        "steps": ENDLESS,
        "weights": "random",
        "unlabelledExamples": True,
        "blocking": False,
    }
    job = logic.fineTune(labelled, labels, unlabelled=[other], **settings)
    fields = written(job, process_events)
    assert [Path(each).name for each in fields["unlabelled"]] == ["other.nrrd"]
    assert fields["unlabelled_examples"] is True
    with pytest.raises(ValueError, match="A volume node is needed"):
        logic.fineTune(labelled, labels, unlabelled=[labels], **settings)
