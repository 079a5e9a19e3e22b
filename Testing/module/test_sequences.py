"""Sequences: frames are learnt from and segmented one by one, whichever of them a browser shows."""

from __future__ import annotations

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
    segment_points,
    world_points,
)
from Testing.support.sequence_scenes import (
    OTHER,
    OTHER_SHAPE,
    SHAPE,
    TIMES,
    add_companion,
    add_sequence,
    frame_placement,
    frame_voxels,
)

TURN = placement((1, 1, 1), (0, 0, 1), 20.0, (4.0, 3.0, 2.0))


@pytest.fixture
def heart(module, scene):
    """The node that shows the frames, under a transform, and its browser."""
    volume, browser = add_sequence()
    add_transform(TURN, volume)
    return volume, browser


@pytest.fixture
def labels(heart):
    """Drawn while the second frame is in view; the scene's node, which belongs to no sequence."""
    volume, browser = heart
    browser.SetSelectedItemNumber(1)
    mask = box(SHAPE, (2, 3), (5, 15), (5, 15)) | box(SHAPE, (6, 7), (5, 15), (5, 15))
    return add_segmentation(volume, {"wall": mask})


@pytest.fixture
def model(pretended, logic):
    model = job_workers.write_model("heart", "wall")
    yield model
    logic.deleteModel(model)


@pytest.fixture
def written(monkeypatch):
    """The volumes that jobs of applies were given, as arrays; filled in while they are prepared."""
    from SAMFineTunePanel.jobs import apply_request

    from SAMFineTuneLib.volumes import read_volume

    arrays: list[np.ndarray] = []
    write = apply_request.writeJob

    def noted(folder, kind, fields):
        arrays[:] = [read_volume(Path(each)).array.copy() for each in fields["volumes"]]
        further = [Path(each) for (each,) in fields["channels"]]
        arrays.extend(read_volume(each).array.copy() for each in further)
        # A model calls the images after their files, whichever the frame.
        assert {each.stem for each in further} <= {"Phase", "Still"}
        write(folder, kind, fields)

    monkeypatch.setattr(apply_request, "writeJob", noted)
    return arrays


def shows(volume) -> int:
    """Number of the frame that a node shows, as its voxels tell."""
    import slicer

    return int(slicer.util.arrayFromVolume(volume).min()) // 1000


def exported(examples, folder: Path) -> list[tuple[dict, np.ndarray, np.ndarray]]:
    """The examples as job.json has them, with the voxels of their images and of their labels."""
    from SAMFineTunePanel.examples.example_export import FinetuneInputs, structureLabels
    from SAMFineTunePanel.examples.example_frames import atItsFrame
    from SAMFineTunePanel.examples.example_slices import PaintedSlices

    from SAMFineTuneLib.volumes import read_labelmap, read_volume

    found = [atItsFrame(each) for each in examples]
    inputs = FinetuneInputs(found, folder, PaintedSlices(), structureLabels(found))
    for _piece in inputs.steps():
        pass
    return [
        (
            entry,
            read_volume(Path(entry["volume"])).array,
            read_labelmap(Path(entry["segmentation"]), empty_ok=True).array,
        )
        for entry in inputs.written
    ]


def test_an_example_remembers_its_frame(logic, heart, labels, tmp_path):
    volume, browser = heart
    first = logic.addExample(volume, labels)
    assert first.frame == TIMES[1]
    with pytest.raises(ValueError, match="is an example already"):
        logic.addExample(volume, labels)
    with pytest.raises(ValueError, match="has no frame 4; its 4 frames are numbered from 0"):
        logic.addExample(volume, labels, frame=4)
    logic.addExample(volume, labels, frame=3)
    browser.SetSelectedItemNumber(0)
    examples = list(logic.getParameterNode().examples)
    (one, image, mask), (other, otherImage, _mask) = exported(examples, tmp_path)
    # The voxels are those of the frames, not what the browser shows now.
    assert shows(volume) == 0
    assert np.array_equal(image, frame_voxels(1)) and np.array_equal(otherImage, frame_voxels(3))
    assert mask[2].any() and mask[6].any() and mask.sum() == 200
    assert one["volume"] != other["volume"] and one["group"] == other["group"] != ""
    # Each frame has a geometry of its own.
    example = logic.addExample(volume, labels, frame=OTHER)
    assert logic.exampleSlices(example).count == OTHER_SHAPE[0]


def test_volumes_on_their_own_have_no_group(logic, scene, tmp_path):
    volume = add_volume(frame_voxels(0), placement(), "CT")
    labels = add_segmentation(volume, {"wall": box(SHAPE, (2, 4), (5, 15), (5, 15))})
    example = logic.addExample(volume, labels)
    assert example.frame == ""
    ((entry, _image, _mask),) = exported([example], tmp_path)
    assert entry.get("group", "") == ""


def test_labels_of_a_sequence_come_from_the_same_frame(logic, heart, tmp_path):
    import slicer

    volume, browser = heart
    labels = add_segmentation(volume, {"wall": np.zeros(SHAPE, bool)})
    sequence = slicer.modules.sequences.logic().AddSynchronizedNode(None, labels, browser)
    browser.SetSaveChanges(sequence, True)
    for number in (0, 1, 3):
        browser.SetSelectedItemNumber(number)
        mask = box(SHAPE, (number + 1, number + 2), (5, 15), (5, 15)).astype(np.uint8)
        segment = labels.GetSegmentation().GetNthSegmentID(0)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, labels, segment, volume)
    examples = [logic.addExample(volume, labels, frame=number) for number in (0, 3)]
    browser.SetSelectedItemNumber(1)
    assert [logic.exampleSlices(each).labelled for each in examples] == [[1], [4]]
    masks = [mask for _entry, _image, mask in exported(examples, tmp_path)]
    assert [np.flatnonzero(each.any(axis=(1, 2))).tolist() for each in masks] == [[1], [4]]
    browser.SetSaveChanges(sequence, False)
    assert "turn on Save changes" in logic.exampleSlices(examples[0]).warning


def test_a_frame_that_is_gone_is_said(logic, heart, labels):
    import slicer

    volume, browser = heart
    example = logic.addExample(volume, labels)
    browser.GetMasterSequenceNode().RemoveDataNodeAtValue(TIMES[1])
    assert "removed from its sequence" in logic.exampleSlices(example).problem
    assert "removed from its sequence" in logic.problemWithFineTune()
    slicer.mrmlScene.RemoveNode(browser)
    assert "no longer shows a sequence" in logic.exampleSlices(example).problem


def test_the_frame_in_view_alone_is_segmented(logic, heart, model, written):
    volume, browser = heart
    browser.SetSelectedItemNumber(3)
    job = logic.apply(model, volume, blocking=False)
    # The browser moves on before the voxels are written.
    browser.SetSelectedItemNumber(OTHER)
    (result,) = job.wait()
    assert [np.array_equal(each, frame_voxels(3)) for each in written] == [True]
    assert result.GetName() == "Heart frame 4 heart"
    assert lies_as_found(result, 3, SHAPE)


def node_ids() -> set[str]:
    """Of all nodes but the tree of data and parameters, which are made when first asked for."""
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLNode")
    asked = ("vtkMRMLSubjectHierarchyNode", "vtkMRMLScriptedModuleNode")
    return {each.GetID() for each in nodes if each.GetClassName() not in asked}


def lies_as_found(segmentation, number: int, shape) -> bool:
    """Whether a segmentation holds, in the world, what the pretended worker finds in a frame."""
    slices, rows, columns = shape
    found = np.zeros(shape, bool)
    found[slices // 8 : -slices // 8, rows // 4 : rows // 4 + rows // 2] = True
    found[:, :, : columns // 4] = found[:, :, columns - columns // 4 :] = False
    points = segment_points(segmentation, "wall")
    truth = world_points(found, TURN @ frame_placement(number))
    return points.shape == truth.shape and np.allclose(points, truth, atol=2e-3)


def test_all_frames_become_a_sequence(logic, heart, model, written, process_events):
    import slicer

    volume, browser = heart
    browser.SetSelectedItemNumber(1)
    before = node_ids()
    result = logic.apply(model, volume, frames="all", show3D=True)
    assert [np.array_equal(each, frame_voxels(n)) for n, each in enumerate(written)] == [True] * 4
    assert result.GetName() == "Heart heart"
    assert [each.GetName() for each in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")] == [
        "Heart heart"
    ]
    sequence = browser.GetSequenceNode(result)
    assert [sequence.GetNthIndexValue(number) for number in range(4)] == list(TIMES)
    assert sequence.GetIndexName() == "trigger" and sequence.GetIndexUnit() == "ms"
    # The segmentation follows the browser, each frame in its own geometry.
    identifiers = set()
    for number in (0, 3, OTHER, 1):
        browser.SetSelectedItemNumber(number)
        assert shows(volume) == number
        assert lies_as_found(result, number, OTHER_SHAPE if number == OTHER else SHAPE)
        identifiers.add(segment_id(result, "wall"))
        surface = "Closed surface"
        assert result.GetSegmentation().GetNthSegment(0).GetRepresentation(surface) is not None
    assert len(identifiers) == 1
    assert result.GetParentTransformNode() is volume.GetParentTransformNode()
    # What is edited stays with its frame.
    browser.SetSelectedItemNumber(0)
    assert logic.canUndoApply(result)
    browser.SetSelectedItemNumber(3)
    assert logic.canUndoApply(result)
    logic.undoApply(result)
    after = node_ids()
    assert after == before and browser.GetNumberOfSynchronizedSequenceNodes(True) == 1


def test_edits_stay_with_their_frame_and_forbid_the_undo(logic, heart, model):
    import slicer

    volume, browser = heart
    before = node_ids()
    result = logic.apply(model, volume, frames=[0, 3], uncertainty=True)
    # The uncertainty is a sequence, too.
    doubt = slicer.util.getNode("Heart uncertainty")
    assert slicer.util.arrayFromVolume(doubt).max() == 0.5
    assert doubt.GetParentTransformNode() is volume.GetParentTransformNode()
    browser.SetSelectedItemNumber(3)
    assert slicer.util.arrayFromVolume(doubt).shape == SHAPE
    assert doubt.GetOrigin() == volume.GetOrigin() == (15.0, 0.0, 0.0)
    logic.undoApply(result)
    assert node_ids() == before
    result = logic.apply(model, volume, frames=[0, 3])
    sequence = browser.GetSequenceNode(result)
    assert [sequence.GetNthIndexValue(number) for number in range(2)] == [TIMES[0], TIMES[3]]
    browser.SetSelectedItemNumber(3)
    mask = box(SHAPE, (0, 1), (0, 4), (0, 4)).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask, result, segment_id(result, "wall"), volume
    )
    # Of a frame that was not segmented nothing is shown, and none is made.
    browser.SetSelectedItemNumber(1)
    assert result.GetSegmentation().GetNumberOfSegments() == 0
    assert sequence.GetNumberOfDataNodes() == 2
    browser.SetSelectedItemNumber(3)
    assert len(segment_points(result, "wall")) == 16
    assert not logic.canUndoApply(result)


def test_frames_are_saved_with_the_scene(logic, heart, labels, model, tmp_path):
    import slicer

    logic.addExample(heart[0], labels)
    logic.apply(model, heart[0], frames="all")
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.util.loadScene(path, {"clear": True})
    (example,) = logic.getParameterNode().examples
    assert example.frame == TIMES[1] and logic.exampleSlices(example).labelled == [2, 6]
    (browser,) = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    for number in (0, OTHER):
        browser.SetSelectedItemNumber(number)
        shape = OTHER_SHAPE if number == OTHER else SHAPE
        assert lies_as_found(slicer.util.getNode("Heart heart"), number, shape)


def test_what_is_drawn_on_a_frame_is_kept_there_alone(logic, heart, labels, model):
    volume, browser = heart
    logic.addExample(volume, labels)
    logic.markEmpty(0, 3)
    result = logic.apply(model, volume, frames="all", keepKnown=True)
    held = {}
    for number in (0, 1):
        browser.SetSelectedItemNumber(number)
        points = (
            np.linalg.inv(TURN @ frame_placement(number))
            @ np.c_[segment_points(result, "wall"), np.ones(len(segment_points(result, "wall")))].T
        )
        held[number] = np.bincount(np.round(points[2]).astype(int), minlength=SHAPE[0])
    assert held[0][2] == held[0][3] == 120
    assert held[1][2] == held[1][6] == 100 and held[1][3] == 0 and held[1][4] == 120


def test_the_further_images_are_of_the_same_frame(logic, heart, pretended, written):
    volume, browser = heart
    still = add_volume(frame_voxels(0) + 500, frame_placement(0), "Still")
    moving = add_companion(browser, "Phase", lambda number: frame_voxels(0) * 0 + number)
    model = job_workers.write_model("two", "wall", channels=("heart", "phase"))
    logic.apply(model, volume, frames=[1, 3], channels=[moving])
    assert [int(each.min()) for each in written] == [1000, 3000, 1, 3]
    logic.apply(model, volume, frames=[1, 3], channels=[still])
    assert [int(each.min()) for each in written] == [1000, 3000, 500, 500]
    logic.deleteModel(model)


def test_a_cancelled_apply_leaves_nothing(logic, heart, model, process_events, monkeypatch):
    from SAMFineTunePanel.jobs import sequence_import

    volume, browser = heart
    before = node_ids()
    job = logic.apply(model, volume, frames="all", blocking=False)
    made = []
    make = sequence_import._emptyItem

    def cancelled_at_the_third(sequence, frame):
        made.append(frame.indexValue)
        if len(made) == 3:
            job.cancel()
        return make(sequence, frame)

    monkeypatch.setattr(sequence_import, "_emptyItem", cancelled_at_the_third)
    process_events(lambda: job.isFinished)
    assert job.state == "cancelled" and made == list(TIMES[:3])
    after = node_ids()
    assert after == before and browser.GetNumberOfSynchronizedSequenceNodes(True) == 1


@pytest.mark.parametrize("what", ["sequence", "frame", "volume"])
def test_what_is_removed_meanwhile_is_said(logic, heart, model, process_events, what):
    import slicer
    from SAMFineTunePanel.jobs.job import JobFailedError

    volume, browser = heart
    job = logic.apply(model, volume, frames="all", blocking=False)
    process_events(lambda: job.state == "running")
    sequence = browser.GetMasterSequenceNode()
    if what == "frame":
        sequence.RemoveDataNodeAtValue(TIMES[1])
    else:
        slicer.mrmlScene.RemoveNode(sequence if what == "sequence" else volume)
    with pytest.raises(JobFailedError, match=r"Heart was removed|sequence of Heart was removed"):
        job.wait()
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []


def test_frames_that_cannot_be_are_refused_in_words(logic, heart, model):
    import slicer

    volume, browser = heart
    other = add_volume(frame_voxels(0), placement(), "CT")
    for volumes in (other, [volume, other]):
        with pytest.raises(ValueError, match="Frames are those of one volume that shows a sequ"):
            logic.apply(model, volumes, frames="all")
    with pytest.raises(ValueError, match='"all" or numbers from 0, not every'):
        logic.apply(model, volume, frames="every")
    with pytest.raises(ValueError, match="no frame -1"):
        logic.apply(model, volume, frames=[-1])
    with pytest.raises(ValueError, match="Choose at least one frame"):
        logic.apply(model, volume, frames=[])
    target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    with pytest.raises(ValueError, match="get a new segmentation"):
        logic.apply(model, volume, target, frames="all")
    frames = logic.apply(model, volume, frames="all")
    with pytest.raises(ValueError, match="shows the frames of a sequence"):
        logic.apply(model, volume, frames)
    logic.undoApply(frames)
    assert browser.GetNumberOfSynchronizedSequenceNodes(True) == 1


def test_a_slicer_without_the_module_knows_no_sequences(logic, heart, labels, monkeypatch):
    import slicer

    volume, _browser = heart
    monkeypatch.delattr(slicer.modules, "sequences")
    assert logic.addExample(volume, labels).frame == ""


def test_the_panel_shows_frames_and_offers_all(panel, heart, labels, model, process_events):
    volume, browser = heart
    sections = panel.panel
    ui, apply = sections.examples.ui, sections.apply.ui
    sections._updateFromFilesSoon()
    process_events(lambda: ui.addButton.enabled)
    ui.addButton.click()
    process_events(lambda: ui.frameTextLabel.text == "2 of 4")
    assert ui.examplesTable.item(0, 0).text() == "Heart, frame 2 of 4"
    assert not ui.currentFrameButton.enabled and not ui.addButton.enabled
    # On another frame the labels are those of the first one still: another segmentation is needed.
    browser.SetSelectedItemNumber(3)
    process_events(lambda: ui.frameTextLabel.text == "2 of 4; in view: 4")
    assert not ui.addButton.enabled and "another frame" in ui.addButton.toolTip
    add_segmentation(volume, {"wall": box(SHAPE, (3, 4), (5, 15), (5, 15))}, "Other labels")
    process_events(lambda: ui.addButton.enabled)
    ui.addButton.click()
    process_events(lambda: ui.examplesTable.rowCount == 2)
    assert ui.examplesTable.item(1, 0).text() == "Heart, frame 4 of 4"
    assert not ui.problemLabel.visible
    # A labelled slice is shown on its frame.
    ui.examplesTable.selectRow(0)
    ui.labelledLabel.linkActivated.emit("6")
    assert browser.GetSelectedItemNumber() == 1
    ui.examplesTable.selectRow(1)
    browser.SetSelectedItemNumber(0)
    process_events(lambda: ui.currentFrameButton.enabled)
    # What is drawn in one segmentation counts on two frames: that is said.
    choose = sections.examples.onSegmentationChosen
    choose(labels)
    assert "Labels counts on frame 2 and on frame 4" in ui.problemLabel.text
    ui.currentFrameButton.click()
    assert sections.examples.parameterNode.examples[1].frame == TIMES[0]
    assert ui.frameTextLabel.text == "1 of 4"
    node = sections.apply.parameterNode
    assert list(node.applyVolumes) == [volume]
    process_events(lambda: apply.allFramesCheckBox.isVisibleTo(apply.collapsibleButton))
    assert not apply.allFramesCheckBox.checked
    apply.allFramesCheckBox.click()
    process_events(lambda: apply.applyButton.enabled and not apply.segmentationSelector.enabled)
    apply.applyButton.click()
    process_events(lambda: panel.logic.job.isFinished)
    assert apply.statusLabel.text == "Done: Heart heart."
    process_events(lambda: apply.undoButton.enabled)
    browser.SetSelectedItemNumber(2)
    apply.undoButton.click()
    assert apply.statusLabel.text == "Taken back."
    other = add_volume(frame_voxels(0), placement(), "CT")
    node.applyVolumes = [other]
    process_events(lambda: not apply.allFramesCheckBox.isVisibleTo(apply.collapsibleButton))
    # A tick that was left does not matter to a volume on its own.
    assert panel.logic.problemWithApply() == ""


def test_a_correction_begins_anew_on_another_frame(pretended, panel, heart, labels, process_events):
    import slicer

    volume, browser = heart
    node, ui = panel.logic.getParameterNode(), panel.panel.correct.ui
    node.correctVolume, node.correctSegmentation = volume, labels
    node.correctSegment = segment_id(labels, "wall")
    correction = panel.logic.correction

    def points() -> int:
        nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
        return sum(each.GetNumberOfControlPoints() for each in nodes)

    def settle() -> None:
        correction_workers.wait_until_idle(correction, process_events)

    process_events(lambda: ui.startButton.enabled)
    ui.startButton.click()
    settle()
    first = correction.session.processID
    before = segment_points(labels, "wall")
    correction.look(4)
    correction.addPoint(correction.session.segment.rasOf((12, 10, 4)))
    settle()
    process_events(lambda: points() == 1)
    assert 4 in correction.session.preview
    browser.SetSelectedItemNumber(3)
    # At once, before anything was heard of it: the mask of the second frame is not written.
    with pytest.raises(ValueError, match=r"Frame 4 of 4 is shown now.*same on all frames"):
        correction.accept()
    assert np.array_equal(segment_points(labels, "wall"), before)
    settle()
    process_events(lambda: points() == 0)
    assert correction.session.processID != first and correction.session.preview == {}
    assert correction.session.accepted == set() and correction.session.frame == TIMES[3]
    # Heard of by itself, with another number of slices, too.
    browser.SetSelectedItemNumber(OTHER)
    process_events(lambda: "Frame 3 of 4" in ui.statusLabel.text)
    settle()
    assert correction.session.segment.count == OTHER_SHAPE[0]
    correction.look(2)
    correction.addPoint(correction.session.segment.rasOf((12, 10, 2)))
    settle()
    correction.accept()
    assert correction.session.accepted == {2}
    # A sequence that is played is not followed.
    browser.SetPlaybackActive(True)
    browser.SetSelectedItemNumber(0)
    process_events(lambda: not correction.session.isOpen)
    assert "being played" in ui.errorLabel.text
    browser.SetPlaybackActive(False)


def test_a_correction_of_a_segmented_sequence(logic, heart, model, process_events):
    volume, browser = heart
    result = logic.apply(model, volume, frames=[0, 1])
    browser.SetSelectedItemNumber(1)
    node = logic.getParameterNode()
    node.correctVolume, node.correctSegmentation = volume, result
    node.correctSegment = segment_id(result, "wall")
    logic.startCorrecting()
    correction = logic.correction
    correction_workers.wait_until_idle(correction, process_events)
    correction.look(4)
    correction.addPoint(correction.session.segment.rasOf((2, 2, 4)))
    correction_workers.wait_until_idle(correction, process_events)
    correction.accept()
    corrected = segment_points(result, "wall")
    browser.SetSelectedItemNumber(0)
    process_events(lambda: "Frame 1 of 4" in correction.status.text)
    assert "same on all frames" not in correction.status.text
    correction_workers.wait_until_idle(correction, process_events)
    assert correction.session.isOpen and lies_as_found(result, 0, SHAPE)
    browser.SetSelectedItemNumber(1)
    assert np.array_equal(segment_points(result, "wall"), corrected)
    correction.close()
