"""Corrections from the console: pretended workers for what can go wrong, and the real one once."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from Testing.support.correction_workers import pretend, session_folders
from Testing.support.scene_builders import add_segmentation, add_volume, box, placement

SHAPE = (9, 40, 50)


@pytest.fixture
def logic(module, scene):
    from SAMFineTune import SAMFineTuneLogic

    logic = SAMFineTuneLogic()
    yield logic
    logic._state.scriptedCorrection.endForClosing()
    assert session_folders() == []


@pytest.fixture
def nodes(module, scene):
    generator = np.random.default_rng(3)
    values = generator.normal(100, 5, SHAPE)
    values[:, 12:28, 15:35] += 80
    matrix = placement((1.0, 1.0, 3.0), (0, 0, 1), 10.0, (5.0, 6.0, 7.0))
    volume = add_volume(values.astype(np.int16), matrix)
    masks = {"liver": box(SHAPE, (4, 5), (12, 28), (15, 35)), "other": np.zeros(SHAPE, bool)}
    return volume, add_segmentation(volume, masks)


def ras(volume, i: float, j: float, k: float) -> list[float]:
    from SAMFineTunePanel.scene.voxel_grid import gridOf

    return list((gridOf(volume).ijkToRas @ [i, j, k, 1.0])[:3])


def held(nodes, name: str) -> np.ndarray:
    import slicer

    volume, segmentation = nodes
    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0


def test_points_and_boxes_on_a_slice(logic, nodes, monkeypatch):
    pretend(monkeypatch)
    volume, segmentation = nodes
    before = held(nodes, "liver")
    points = [ras(volume, 10, 20, 6), ras(volume, 14, 20, 6)]
    found = logic.correct(volume, segmentation, "liver", points=points, labels=[1, 0])
    after = held(nodes, "liver")
    assert found.slices == [6] and (after[6] == found.masks[6]).all() and after[6, 20, 6]
    assert not after[6, 20, 14] and found.changedVoxels == (after != before).sum() > 20
    assert found.confidence == 0.5 and "Accepted slice 6" in found.remark
    worker = logic._state.scriptedCorrection.session.processID
    corners = [ras(volume, 5, 5, 2), ras(volume, 9, 8, 2)]
    boxed = logic.correct(volume, segmentation, "other", box=corners, start="nothing")
    assert (held(nodes, "other")[2] == box(SHAPE, (2, 3), (5, 9), (5, 10))[2]).all()
    assert logic._state.scriptedCorrection.session.processID == worker
    boxed.undo()
    found.undo()
    assert (held(nodes, "liver") == before).all() and not held(nodes, "other").any()
    with pytest.raises(ValueError, match="taken back already"):
        found.undo()


def test_a_mask_can_be_looked_at_only(logic, nodes, monkeypatch):
    pretend(monkeypatch)
    volume, segmentation = nodes
    before = held(nodes, "liver")
    found = logic.correct(
        volume, segmentation, "liver", points=[ras(volume, 40, 8, 4)], slice=4, accept=False
    )
    assert found.masks[4][8, 40] and found.masks[4][20, 20] and found.changedVoxels == 0
    assert (held(nodes, "liver") == before).all()
    with pytest.raises(ValueError, match="Nothing was kept"):
        found.undo()


def test_a_segment_is_propagated(logic, nodes, monkeypatch):
    pretend(monkeypatch)
    volume, segmentation = nodes
    found = logic.propagate(volume, segmentation, "liver", 2)
    assert found.slices == [2, 3, 5, 6] and (held(nodes, "liver")[2:7] == found.masks[2]).all()
    again = logic.propagate(volume, segmentation, "liver", 0)
    assert again.slices == [] and again.changedVoxels == 0 and "nothing changes" in again.remark
    found.undo()
    assert held(nodes, "liver")[4].any() and not held(nodes, "liver")[3].any()


def test_what_cannot_be_is_an_exception_in_words(logic, nodes, monkeypatch):
    pretend(monkeypatch)
    volume, segmentation = nodes
    before = held(nodes, "liver")
    inside, above = ras(volume, 10, 10, 3), ras(volume, 20, 20, 4)
    for arguments, words in (
        ({}, "Give points"),
        ({"points": [inside], "labels": [1, 0]}, "each point needs one"),
        ({"box": [inside]}, "two opposite corners"),
        ({"points": [[999, 0, 0]]}, "outside"),
        ({"points": [inside], "slice": 99}, "no axial slice 99"),
        ({"points": [inside], "slice": 5}, "on axial slice 3, not on slice 5"),
        ({"points": [inside, above]}, "on axial slice 4, not on slice 3"),
        ({"box": [inside, above]}, "on axial slice 4, not on slice 3"),
        ({"box": [inside, inside]}, "no area"),
        ({"points": [inside], "start": "there"}, "no start"),
        ({"points": [inside], "orientation": "askew"}, "no orientation"),
        ({"slice": 1}, "Without points"),
    ):
        with pytest.raises(ValueError, match=words):
            logic.correct(volume, segmentation, "liver", **arguments)
    with pytest.raises(ValueError, match="no segment absent"):
        logic.correct(volume, segmentation, "absent", points=[inside])
    with pytest.raises(ValueError, match="no voxels to carry on"):
        logic.propagate(volume, segmentation, "other")
    with pytest.raises(ValueError, match="at least one"):
        logic.propagate(volume, segmentation, "liver", -1)
    pretend(monkeypatch, "refuse")
    logic._state.scriptedCorrection.close()
    with pytest.raises(ValueError, match=r"No\. Ask another"):
        logic.correct(volume, segmentation, "liver", points=[inside])
    pretend(monkeypatch, "die_always")
    logic._state.scriptedCorrection.close()
    with pytest.raises(ValueError, match="RuntimeError: pretended"):
        logic.correct(volume, segmentation, "liver", points=[inside])
    assert (held(nodes, "liver") == before).all()


def test_slice_views_stay_where_they_are(logic, nodes, monkeypatch, layout_manager):
    import slicer
    from SAMFineTunePanel.scene.slice_view import showSlice, sliceInView

    pretend(monkeypatch)
    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    volume, segmentation = nodes
    showSlice(volume, "axial", 1)
    logic.correct(volume, segmentation, "liver", points=[ras(volume, 10, 20, 6)])
    assert sliceInView(volume, "axial").number == 1 and held(nodes, "liver")[6, 20, 10]
    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUp3DView)


def test_the_real_worker_answers_and_outlives_a_kill(logic, nodes):
    volume, segmentation = nodes
    corners = [ras(volume, 14, 11, 7), ras(volume, 35, 28, 7)]
    middle = ras(volume, 25, 20, 7)
    found = logic.correct(volume, segmentation, "liver", points=[middle], box=corners)
    expected = box(SHAPE, (7, 8), (12, 28), (15, 35))[7]
    both = (found.masks[7] & expected).sum()
    assert 2 * both / (found.masks[7].sum() + expected.sum()) > 0.8
    correction = logic._state.scriptedCorrection
    for process in psutil.Process(correction.session.processID).children(recursive=True):
        process.kill()
    psutil.Process(correction.session.processID).kill()
    again = logic.correct(volume, segmentation, "liver", points=[middle], slice=7, accept=False)
    assert again.masks[7][20, 25]
    between = logic.propagate(volume, segmentation, "liver", 1)
    assert {5, 6} <= set(between.slices) and held(nodes, "liver")[6, 20, 25]


# The test of the real worker that is killed and answers again asks it in the same way.
@pytest.mark.slow
def test_an_image_without_contrast_is_refused_by_the_real_worker(logic, nodes):
    volume = add_volume(np.full(SHAPE, 7, np.int16), placement(), "flat")
    with pytest.raises(ValueError, match="same value") as refused:
        logic.correct(volume, nodes[1], "liver", points=[[20, 20, 4]])
    assert "--" not in str(refused.value)
    assert not logic._state.scriptedCorrection.session.isOpen
