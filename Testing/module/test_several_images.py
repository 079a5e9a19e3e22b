"""Several images of one case, such as T1 and FLAIR: learnt from, applied to, and corrected on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from Testing.support import correction_workers, job_workers
from Testing.support.corrected_scene import segment_id
from Testing.support.scene_builders import (
    add_segmentation,
    add_transform,
    add_volume,
    box,
    placement,
)

SHAPE = (12, 20, 24)
# Of the FLAIR, which lies on another grid.
OTHER_SHAPE = (6, 20, 24)
NAMES = ("t1", "flair")


@pytest.fixture
def case(module, scene):
    """A T1, a FLAIR of half as many slices under a transform, and labels drawn on the T1."""
    random = np.random.default_rng(1)
    t1 = add_volume(random.integers(0, 99, SHAPE).astype(np.int16), placement((1, 1, 2)), "Head T1")
    flair = add_volume(
        random.integers(0, 99, OTHER_SHAPE).astype(np.int16), placement((1, 1, 4)), "Head FLAIR"
    )
    add_transform(placement(origin=(1.0, 2.0, 0.0)), flair)
    mask = box(SHAPE, (4, 5), (5, 15), (5, 15)) | box(SHAPE, (8, 9), (5, 15), (5, 15))
    return t1, flair, add_segmentation(t1, {"lesion": mask})


@pytest.fixture
def model(pretended, logic):
    """A tuned model of two images; nobody has trained it."""
    model = job_workers.write_model("lesions", "lesion", channels=NAMES)
    yield model
    logic.deleteModel(model)


@pytest.fixture
def sections(panel, case, process_events):
    """The panel with an example of the T1, which is selected."""
    t1, _flair, labels = case
    panel.logic.addExample(t1, labels)
    panel.panel.updateSoon()
    process_events(lambda: panel.panel.examples.row == 0)
    return panel.panel


def choose(combo_box, node) -> None:
    combo_box.currentIndex = combo_box.findData(node.GetID() if node is not None else "")


def job_of(job, process_events) -> dict:
    """job.json, once it is written."""
    file = Path(job.folder) / "job.json"
    process_events(file.is_file)
    return json.loads(file.read_text(encoding="utf-8"))


def test_both_images_are_written_where_they_lie_in_the_world(case, tmp_path):
    from SAMFineTunePanel.examples.example_export import FinetuneInputs, structureLabels
    from SAMFineTunePanel.examples.example_slices import PaintedSlices
    from SAMFineTunePanel.parameter_node import Example
    from SAMFineTunePanel.scene.voxel_grid import gridOf

    from SAMFineTuneLib.examples.channel_names import channel_names
    from SAMFineTuneLib.volumes import read_volume
    from SAMFineTuneLib.volumes.case import read_case

    t1, flair, labels = case
    examples = [
        Example(volume=t1, segmentation=labels, segmentIDs=[], channels=[flair]),
        Example(volume=t1, segmentation=labels, segmentIDs=[], channels=[flair]),
    ]
    inputs = FinetuneInputs(examples, tmp_path / "in", PaintedSlices(), structureLabels(examples))
    for _piece in inputs.steps():
        pass
    first, second = inputs.written
    # One file an image, however many segmentations it has: the case is held out as one.
    assert (first["volume"], first["channels"]) == (second["volume"], second["channels"])
    files = [Path(first["volume"]), *map(Path, first["channels"])]
    assert channel_names([files]) == NAMES
    for file, node in zip(files, (t1, flair), strict=True):
        read = read_volume(file)
        assert np.array_equal(read.array, slicer_array(node))
        origin = np.array(read.geometry.origin) * [-1, -1, 1]
        assert np.allclose(origin, gridOf(node).ijkToRas[:3, 3])
    assert read_case(files[0], files[1:]).array.shape == (*SHAPE, 2)


def slicer_array(node) -> np.ndarray:
    import slicer

    return slicer.util.arrayFromVolume(node)


def test_the_console_tunes_and_applies_with_two_images(pretended, logic, case, process_events):
    t1, flair, labels = case
    settings = {"steps": 2, "weights": "random"}
    model = logic.fineTune(t1, labels, channels=[flair], name="two images", **settings)
    assert model.card.channels == list(NAMES)
    lacking = r"takes 2 images of a case: t1, flair\. Choose for Head T1: flair"
    with pytest.raises(ValueError, match=lacking):
        logic.apply(model, t1)
    with pytest.raises(ValueError, match="one volume at a time"):
        logic.apply(model, [t1, flair])
    job = logic.apply(model, t1, channels=[flair], blocking=False)
    written = job_of(job, process_events)
    assert [Path(each).name for each in written["volumes"]] == ["Head_T1.nrrd"]
    assert [Path(each).name for each in written["channels"][0]] == ["Head_FLAIR.nrrd"]
    job.cancel()
    process_events(lambda: job.isFinished)
    several = logic.apply(model, [t1, flair], channels=[[flair], [t1]])
    assert [each.GetName() for each in several] == [
        "Head T1 two images",
        "Head FLAIR two images",
    ]
    logic.deleteModel(model)


def test_what_cannot_go_together_is_refused_in_words(logic, case, model):
    import slicer
    import vtk

    t1, flair, labels = case
    with pytest.raises(ValueError, match="chosen twice"):
        logic.addExample(t1, labels, channels=[t1])
    colours = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Photo")
    slicer.util.updateVolumeFromArray(colours, np.zeros((*SHAPE, 3), np.uint8))
    with pytest.raises(ValueError, match="Photo is a colour image"):
        logic.addExample(t1, labels, channels=[colours])
    with pytest.raises(ValueError, match="two at most"):
        logic.addExample(t1, labels, channels=[flair, colours, flair])
    logic.addExample(t1, labels, channels=[flair])
    logic.addExample(flair, labels)
    assert "Choose equally many images" in logic.problemWithFineTune()
    logic.removeExample(1)
    assert logic.problemWithFineTune() == ""
    # The FLAIR under a transform of its own is learnt from where it lies, if that can be.
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    warp.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    flair.SetAndObserveTransformNodeID(warp.GetID())
    assert "Head FLAIR lies under a transform that is not linear" in logic.problemWithFineTune()
    flair.SetAndObserveTransformNodeID(None)
    single = job_workers.write_model("single", "lesion")
    with pytest.raises(ValueError, match="takes one image"):
        logic.apply(single, t1, channels=[flair])
    with pytest.raises(ValueError, match="takes one image"):
        logic.fineTune(t1, labels, channels=[flair], startFrom=single)
    logic.deleteModel(single)


def test_images_are_chosen_with_an_example_and_saved(sections, case, tmp_path, process_events):
    import slicer

    _t1, flair, _labels = case
    ui, node = sections.examples.ui, sections.examples.parameterNode
    boxes = [ui.secondImageComboBox, ui.thirdImageComboBox]
    assert [box.isVisibleTo(ui.exampleWidget) for box in boxes] == [True, False]
    assert [boxes[0].itemText(row) for row in range(boxes[0].count)] == ["none", "Head FLAIR"]
    choose(boxes[0], flair)
    assert list(node.examples[0].channels) == [flair]
    assert ui.examplesTable.item(0, 0).text() == "Head T1 + Head FLAIR"
    # A third one can be chosen where there is one.
    t2 = add_volume(np.zeros(SHAPE, np.int16), placement(), "Head T2")
    process_events(lambda: boxes[1].isVisibleTo(ui.exampleWidget))
    choose(boxes[1], t2)
    assert list(node.examples[0].channels) == [flair, t2]
    choose(boxes[0], None)
    assert list(node.examples[0].channels) == [t2]
    choose(boxes[0], flair)
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.util.loadScene(path, {"clear": True})
    process_events(lambda: sections.examples.row == 0)
    again = sections.examples.parameterNode.examples[0]
    assert [each.GetName() for each in again.channels] == ["Head FLAIR"]
    process_events(lambda: boxes[0].currentText == "Head FLAIR")


def test_an_image_that_is_removed_is_dropped_and_said(sections, case, process_events):
    import slicer

    _t1, flair, _labels = case
    ui = sections.examples.ui
    choose(ui.secondImageComboBox, flair)
    slicer.mrmlScene.RemoveNode(flair)
    process_events(lambda: "A further image of Head T1 was removed" in ui.problemLabel.text)
    assert list(sections.examples.parameterNode.examples[0].channels) == []
    assert ui.examplesTable.item(0, 0).text() == "Head T1"


def test_an_image_that_becomes_the_volume_is_not_its_own_companion(sections, case):
    _t1, flair, _labels = case
    selector = sections.examples.ui.volumeSelector
    choose(sections.examples.ui.secondImageComboBox, flair)
    selector.setCurrentNode(flair)
    selector.nodeActivated.emit(flair)
    example = sections.examples.parameterNode.examples[0]
    assert example.volume is flair and list(example.channels) == []


def test_apply_asks_for_the_images_of_the_model(model, sections, case, process_events):
    import slicer

    t1, flair, _labels = case
    ui, node = sections.apply.ui, sections.apply.parameterNode
    other = add_volume(np.zeros(SHAPE, np.int16), placement(), "Knee FLAIR")
    node.applyVolumes = [t1]
    sections._updateFromFilesSoon()
    process_events(lambda: ui.secondImageComboBox.isVisibleTo(ui.collapsibleButton))
    assert node.applyModel == model.name
    assert ui.secondImageLabel.text == "flair:" and "t1, flair" in ui.imagesLabel.text
    assert not ui.thirdImageComboBox.isVisibleTo(ui.collapsibleButton)
    # Two are called FLAIR; the words of the volume's name tell which one is of this head.
    assert ui.secondImageComboBox.currentText == "Head FLAIR"
    assert ui.applyButton.enabled and list(node.applyChannels) == [flair]
    choose(ui.secondImageComboBox, None)
    process_events(lambda: not ui.applyButton.enabled)
    assert ui.applyButton.toolTip.endswith("Choose for Head T1: flair.")
    # An example of the volume says more than names do.
    choose(sections.examples.ui.secondImageComboBox, other)
    node.applyVolumes = [flair]
    process_events(lambda: ui.secondImageComboBox.findData(t1.GetID()) > 0)
    choose(ui.secondImageComboBox, t1)
    process_events(lambda: "in each other's place" in ui.imagesLabel.text)
    node.applyVolumes = [t1]
    process_events(lambda: ui.secondImageComboBox.currentText == "Knee FLAIR")
    slicer.mrmlScene.RemoveNode(other)
    process_events(lambda: not ui.applyButton.enabled)
    assert "Choose for Head T1: flair" in ui.applyButton.toolTip
    choose(ui.secondImageComboBox, flair)
    process_events(lambda: ui.applyButton.enabled)
    node.applyVolumes = [t1, flair]
    process_events(lambda: "one volume at a time" in ui.applyButton.toolTip)
    assert not ui.secondImageComboBox.isVisibleTo(ui.collapsibleButton)


def test_a_correction_sees_both_images(model, logic, case, process_events):
    import slicer

    t1, flair, labels = case
    node = logic.getParameterNode()
    node.correctVolume, node.correctSegmentation = t1, labels
    node.correctSegment, node.correctModel = segment_id(labels, "lesion"), model.name
    correction = logic.correction

    def session() -> dict:
        (folder,) = correction_workers.session_folders()
        return json.loads((folder / "session.json").read_text(encoding="utf-8"))

    flair.SetName("other")
    with pytest.raises(ValueError, match=r"Choose for Head T1: flair\. Section Apply"):
        logic.startCorrecting()
    logic.addExample(t1, labels, channels=[flair])
    logic.startCorrecting()
    correction_workers.wait_until_idle(correction, process_events)
    written = session()
    assert Path(written["volume"]).name == "Head_T1.nrrd"
    assert [Path(each).name for each in written["channels"]] == ["other.nrrd"]
    first = correction.session.processID
    # Both moved together lie upon each other as before; the FLAIR alone does not.
    turn = placement((1, 1, 1), (0, 0, 1), 10.0)
    both = add_transform(turn, t1, flair.GetParentTransformNode())
    process_events()
    correction_workers.wait_until_idle(correction, process_events)
    assert both is not None and correction.session.processID == first
    flair.SetAndObserveTransformNodeID(None)
    process_events(lambda: correction.session.state == "opening")
    correction_workers.wait_until_idle(correction, process_events)
    assert correction.session.processID != first
    slicer.mrmlScene.RemoveNode(flair)
    process_events(lambda: not correction.session.isOpen)
    assert "A further image of Head T1 was removed" in correction.status.problem
