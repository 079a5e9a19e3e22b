"""Corrections on a picture in colour, on frames in colour, and on a case with two images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from Testing.support import correction_workers, job_workers
from Testing.support.corrected_scene import segment_id
from Testing.support.scene_builders import add_segmentation, add_volume, box, placement

# One slice, as Slicer loads PNG files.
PICTURE, PLACE = (1, 60, 80), np.diag([-1.0, -1.0, 1.0, 1.0])


def coloured(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8)


def add_coloured(values: np.ndarray, ijk_to_ras: np.ndarray, name: str):
    import slicer

    node = slicer.util.addVolumeFromArray(
        values, name=name, nodeClassName="vtkMRMLVectorVolumeNode"
    )
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras))
    return node


@pytest.fixture
def photo(module, scene):
    """A picture in colour, and a segment that is empty."""
    node = add_coloured(coloured(PICTURE), PLACE, "Photo")
    return node, add_segmentation(node, {"lesion": np.zeros(PICTURE, bool)})


@pytest.fixture
def pretended(monkeypatch):
    correction_workers.pretend(monkeypatch)


@pytest.fixture
def models(monkeypatch, tmp_path):
    """The user's own models are those of the test."""
    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path))


def session() -> dict:
    (folder,) = correction_workers.session_folders()
    return json.loads((folder / "session.json").read_text(encoding="utf-8"))


def voxels(segmentation, name: str, volume) -> np.ndarray:
    import slicer

    return (
        slicer.util.arrayFromSegmentBinaryLabelmap(
            segmentation, segment_id(segmentation, name), volume
        )
        > 0
    )


@pytest.mark.parametrize("model", ["", "lesions"])
def test_a_picture_in_colour_is_corrected_in_its_view(
    model, photo, models, pretended, panel, slice_views, process_events
):
    from SAMFineTunePanel.scene.slice_view import sliceInView

    from SAMFineTuneLib.volumes import read_volume

    volume, segmentation = photo
    if model:
        job_workers.write_model(model, "lesion")
    node, ui = panel.logic.getParameterNode(), panel.panel.correct.ui
    node.correctVolume, node.correctSegmentation = volume, segmentation
    node.correctSegment, node.correctModel = segment_id(segmentation, "lesion"), model
    correction = panel.logic.correction

    def settle() -> None:
        correction_workers.wait_until_idle(correction, process_events)

    process_events(lambda: ui.startButton.enabled)
    ui.startButton.click()
    settle()
    # The colours reach the worker as they are.
    assert np.array_equal(read_volume(Path(session()["volume"])).array, coloured(PICTURE))
    assert correction.session.number == 0 == sliceInView(volume, "axial").number
    assert "slice 0 of 0 to 0" in ui.sliceLabel.text
    correction.addPoint(correction.session.segment.rasOf((30, 20, 0)))
    settle()
    correction.addPoint(correction.session.segment.rasOf((36, 20, 0)), positive=False)
    settle()
    assert len(correction.session.current.prompts) == 2
    mask = correction.session.preview[0].copy()
    assert mask.shape == PICTURE[1:] and mask[20, 28] and not mask[20, 36]
    ui.acceptButton.click()
    assert np.array_equal(voxels(segmentation, "lesion", volume)[0], mask)
    corners = [correction.session.segment.rasOf(each) for each in ((50, 40, 0), (60, 50, 0))]
    correction.addBox(*corners)
    settle()
    ui.acceptButton.click()
    assert voxels(segmentation, "lesion", volume)[0, 45, 55]
    # There is no other slice, which the buttons say as well as who asks all the same.
    for button in (ui.propagateButton, ui.betweenButton):
        assert not button.enabled and "single slice" in button.toolTip
    for propagate in (correction.propagate, correction.fillBetween):
        with pytest.raises(ValueError, match="Photo is a single slice"):
            propagate()
    assert correction.session.isOpen and not correction.isPropagating
    ui.examplesButton.click()
    (example,) = panel.logic.getParameterNode().examples
    assert example.volume is volume and panel.logic.exampleSlices(example).found == [0]
    # Another choice would cut the picture into lines, and is not followed.
    example.orientation = "coronal"
    assert panel.logic.exampleSlices(example).orientation == "axial"
    ui.undoButton.click()
    assert np.array_equal(voxels(segmentation, "lesion", volume)[0], mask)
    correction.close()


def test_frames_in_colour_are_corrected_one_by_one(module, scene, pretended, logic, process_events):
    import slicer

    from SAMFineTuneLib.volumes import read_volume

    shape = (4, 40, 50)
    frames = [coloured(shape, seed=number) for number in range(3)]
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Film")
    for number, values in enumerate(frames):
        item = add_coloured(values, placement((1, 1, 2)), "Film")
        sequence.SetDataNodeAtValue(item, str(number))
        scene.RemoveNode(item)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Film browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    volume = browser.GetProxyNode(sequence)
    browser.SetSelectedItemNumber(1)
    segmentation = add_segmentation(volume, {"wall": np.zeros(shape, bool)})
    node = logic.getParameterNode()
    node.correctVolume, node.correctSegmentation = volume, segmentation
    node.correctSegment = segment_id(segmentation, "wall")
    correction = logic.correction

    def settle() -> None:
        correction_workers.wait_until_idle(correction, process_events)

    logic.startCorrecting()
    settle()
    assert volume.IsA("vtkMRMLVectorVolumeNode")
    assert np.array_equal(read_volume(Path(session()["volume"])).array, frames[1])
    correction.look(1)
    correction.addPoint(correction.session.segment.rasOf((20, 20, 1)))
    settle()
    correction.accept()
    correction.propagate(2)
    settle()
    assert set(correction.session.propagated) == {0, 2, 3}
    browser.SetSelectedItemNumber(2)
    process_events(lambda: "Frame 3 of 3" in correction.status.text)
    settle()
    assert np.array_equal(read_volume(Path(session()["volume"])).array, frames[2])
    assert correction.session.propagated == {} and voxels(segmentation, "wall", volume)[1].any()
    correction.close()
    assert slicer.mrmlScene.IsNodePresent(volume)


def test_a_case_with_two_images_is_clicked_on_accepted_and_propagated(
    module, scene, models, pretended, logic, process_events
):
    shape = (6, 40, 50)
    values = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
    t1 = add_volume(values, placement((1, 1, 2)), "T1")
    add_volume(values[::2].copy(), placement((1, 1, 4)), "FLAIR")
    labels = add_segmentation(t1, {"lesion": box(shape, (2, 3), (5, 15), (5, 15))})
    job_workers.write_model("lesions", "lesion", channels=("t1", "flair"))
    node = logic.getParameterNode()
    node.correctVolume, node.correctSegmentation = t1, labels
    node.correctSegment, node.correctModel = segment_id(labels, "lesion"), "lesions"
    correction = logic.correction

    def settle() -> None:
        correction_workers.wait_until_idle(correction, process_events)

    logic.startCorrecting()
    settle()
    assert [Path(each).stem for each in session()["channels"]] == ["FLAIR"]
    correction.look(2)
    correction.addPoint(correction.session.segment.rasOf((30, 20, 2)))
    settle()
    assert correction.session.current.start == "given"
    correction.accept()
    correction.look(4)
    corners = [correction.session.segment.rasOf(each) for each in ((10, 10, 4), (20, 20, 4))]
    correction.addBox(*corners)
    settle()
    correction.accept()
    correction.fillBetween()
    settle()
    correction.accept()
    assert [bool(each.any()) for each in voxels(labels, "lesion", t1)] == [0, 0, 1, 1, 1, 0]
    # Without the model there is no use for a second image, and none is asked for.
    correction.close()
    node.correctModel = ""
    logic.startCorrecting()
    settle()
    assert session()["channels"] == [] and correction.session.channels == ()
    correction.close()
