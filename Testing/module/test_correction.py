"""Corrections in the scene: prompts, masks, accepting, carrying on, and what comes between."""

from __future__ import annotations

import os
import shutil

import numpy as np
import psutil
import pytest

from Testing.support.correction_workers import pretend, session_folders, wait_until_idle
from Testing.support.scene_builders import (
    add_segmentation,
    add_transform,
    add_volume,
    box,
    placement,
)

SHAPE = (9, 40, 50)
OBLIQUE = placement((0.8, 0.9, 3.0), (1, 2, 3), 20.0, (10.0, -20.0, 30.0))


class Heard:
    """What a correction told."""

    def __init__(self, correction) -> None:
        self.events: list[str] = []
        self.words: list[str] = []
        correction.addListener(self._take)

    def _take(self, correction, event: str) -> None:
        self.events.append(event)
        if event == "status":
            self.words.append(correction.status.problem or correction.status.text)

    @property
    def said(self) -> str:
        return "\n".join(self.words)


@pytest.fixture
def nodes(module, scene):
    """An oblique volume under a transform, and a segmentation with a block and a neighbour."""
    generator = np.random.default_rng(5)
    volume = add_volume(generator.integers(0, 900, SHAPE).astype(np.int16), OBLIQUE)
    add_transform(placement((1, 1, 1), (0, 1, 0), 8.0, (5.0, 6.0, 7.0)), volume)
    masks = {
        "liver": box(SHAPE, (3, 5), (10, 20), (10, 20)),
        "cyst": box(SHAPE, (0, 9), (30, 36), (30, 36)),
    }
    return volume, add_segmentation(volume, masks)


@pytest.fixture
def correction(module, scene):
    from SAMFineTunePanel.correction.correction import Correction

    correction = Correction()
    yield correction
    correction.endForClosing()
    assert session_folders() == []


@pytest.fixture
def opened(correction, nodes, monkeypatch, process_events):
    """A session on the liver, served by a pretended worker."""

    def opened(behaviour: str = "well", **arguments):
        pretend(monkeypatch, behaviour)
        correction.open(*nodes, segment_id(nodes[1], "liver"), **arguments)
        wait_until_idle(correction, process_events)
        return correction

    return opened


@pytest.fixture
def settle(correction, process_events):
    return lambda: wait_until_idle(correction, process_events)


def segment_id(segmentation, name: str) -> str:
    return segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)


def held(segmentation, name: str, volume) -> np.ndarray:
    from SAMFineTunePanel.scene.segment_voxels import segmentVoxels

    mask = np.zeros(SHAPE, bool)
    for where, piece in segmentVoxels(segmentation, segment_id(segmentation, name), volume).slabs():
        mask[where] = piece
    return mask


def ras(correction, i: float, j: float, k: float) -> np.ndarray:
    return correction.session.segment.rasOf((i, j, k))


def paint(nodes, number: int, rows, columns, value: bool = True) -> None:
    """Paint or erase a rectangle of the liver's slice, as somebody does in the Segment Editor."""
    import slicer

    volume, segmentation = nodes
    mask = held(segmentation, "liver", volume)
    mask[number, slice(*rows), slice(*columns)] = value
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), segmentation, segment_id(segmentation, "liver"), volume
    )


def disc(j: float, i: float) -> np.ndarray:
    rows, columns = np.indices(SHAPE[1:])
    return (rows - j) ** 2 + (columns - i) ** 2 < 36


def test_point_mask_accept_and_back(opened, nodes, settle):
    volume, segmentation = nodes
    correction = opened()
    before = {name: held(segmentation, name, volume) for name in ("liver", "cyst")}
    heard = Heard(correction)
    assert correction.session.segment.orientation == "axial" and correction.session.embedded == (
        9,
        9,
    )
    correction.addPoint(ras(correction, 22.3, 12.1, 3.2))
    assert correction.session.number == 3 and correction.session.current.start == "given"
    assert correction.session.current.prompts[0].at == pytest.approx((22.3, 12.1, 3.0))
    settle()
    expected = before["liver"][3] | disc(12.1, 22.3)
    assert (
        correction.session.preview[3] == expected
    ).all() and correction.session.current.confidence == 0.5
    assert (held(segmentation, "liver", volume) == before["liver"]).all()
    assert {"slice", "prompts", "mask"} <= set(heard.events)

    mask = correction.session.preview[3].copy()
    correction.accept()
    after = before["liver"].copy()
    after[3] = mask
    assert (held(segmentation, "liver", volume) == after).all()
    assert (held(segmentation, "cyst", volume) == before["cyst"]).all()
    assert (
        correction.session.accepted == {3}
        and correction.session.preview == {}
        and not correction.session.current.prompts
    )
    assert "Accepted slice 3" in correction.status.text

    correction.undo()
    assert (held(segmentation, "liver", volume) == before["liver"]).all()
    assert (
        len(correction.session.current.prompts) == 1
        and (correction.session.preview[3] == mask).all()
    )
    correction.undo()
    settle()
    assert correction.session.preview == {} and correction.session.accepted == set()
    with pytest.raises(ValueError, match="nothing to undo"):
        correction.undo()
    correction.redo()
    correction.redo()
    settle()
    assert (held(segmentation, "liver", volume) == after).all() and correction.session.accepted == {
        3
    }


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.45, 0.7])
def test_what_a_mask_lacks_is_taken_away_on_the_whole_slice(nodes, axis, shift):
    from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment
    from SAMFineTunePanel.segment_editing.proposed_mask import ProposedMask, packed

    volume, _segmentation = nodes
    # Finer voxels than the volume's, and beside them.
    finer = OBLIQUE @ np.diag([0.7, 0.6, 0.5, 1.0])
    finer[:3, 3] += OBLIQUE[:3, :3] @ np.full(3, shift)
    grid = add_volume(np.zeros((14, 50, 60), np.int16), finer)
    grid.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    block = {"block": box((14, 50, 60), (2, 12), (9, 40), (7, 50))}
    segmentation = add_segmentation(grid, block)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    segment = CorrectedSegment(volume, segmentation, segment_id(segmentation, "block"), axis)
    number = {0: 20, 1: 15, 2: 3}[axis]
    wanted = np.zeros_like(segment.mask(number))
    assert segment.mask(number).any() and segment.mask(number + 1).any()
    wanted[1, 2] = True
    edits = segment.write({number: ProposedMask(wanted, packed(segment.mask(number)))})
    assert (segment.mask(number) == wanted).all()
    assert segment.mask(number + 1).any()
    edits[0].undo()
    assert segment.mask(number).sum() > 1


@pytest.mark.parametrize("start", ["auto", "segment", "nothing"])
def test_what_was_painted_since_a_mask_was_begun_survives_its_accept(opened, nodes, settle, start):
    volume, segmentation = nodes
    correction = opened(start=start)
    before = held(segmentation, "liver", volume)[3]
    correction.addPoint(ras(correction, 22, 12, 3))
    settle()
    paint(nodes, 3, (30, 35), (2, 7))
    correction.addPoint(ras(correction, 24, 12, 3))
    settle()
    paint(nodes, 3, (2, 7), (40, 45))
    # Inside of what the mask adds, too: nobody loses anything there.
    paint(nodes, 3, (12, 13), (24, 26))
    painted = held(segmentation, "liver", volume)
    found = correction.session.preview[3].copy()
    base = np.zeros_like(before) if start == "nothing" else before
    assert (found == (base | disc(12, 22) | disc(12, 24))).all()
    correction.accept()
    after = painted.copy()
    after[3] = np.where(found != before, found, painted[3])
    assert after[3, 30:35, 2:7].all() and after[3, 2:7, 40:45].all()
    # From nothing means: instead of what was there when it was begun.
    assert after[3, 18, 11] == (start != "nothing")
    assert (held(segmentation, "liver", volume) == after).all()
    correction.undo()
    assert (held(segmentation, "liver", volume) == painted).all()
    correction.redo()
    assert (held(segmentation, "liver", volume) == after).all()


def test_what_was_erased_since_a_mask_was_begun_stays_away(opened, nodes, settle):
    volume, segmentation = nodes
    correction = opened()
    correction.addPoint(ras(correction, 30, 12, 3))
    settle()
    paint(nodes, 3, (16, 20), (10, 14), False)
    assert correction.session.preview[3][16:20, 10:14].all()
    correction.accept()
    after = held(segmentation, "liver", volume)[3]
    assert not after[16:20, 10:14].any() and after[10:16, 10:14].all() and after[12, 30]


def test_what_was_painted_while_masks_were_carried_on_survives_their_accept(
    opened, nodes, process_events, settle
):
    volume, segmentation = nodes
    correction = opened("slow")
    before = held(segmentation, "liver", volume)
    correction.look(4)
    correction.accept()
    correction.propagate(3)
    assert correction.isPropagating
    paint(nodes, 5, (30, 35), (2, 7))
    settle()
    paint(nodes, 6, (30, 35), (2, 7))
    paint(nodes, 7, (30, 35), (2, 7))
    # One of them is corrected, and begins with what was carried on.
    correction.addPoint(ras(correction, 30, 15, 6))
    settle()
    painted = held(segmentation, "liver", volume)
    assert sorted(correction.session.preview) == [1, 2, 5, 6, 7]
    assert not correction.session.preview[6][30:35, 2:7].any()
    correction.accept()
    after = painted.copy()
    after[1:8] |= before[4]
    after[6] |= disc(15, 30)
    assert (held(segmentation, "liver", volume) == after).all() and after[5:8, 30:35, 2:7].all()
    correction.undo()
    assert (held(segmentation, "liver", volume) == painted).all()
    correction.redo()
    assert (held(segmentation, "liver", volume) == after).all()


def test_prompts_are_moved_deleted_replaced_and_cleared(opened, settle):
    correction = opened(start="nothing")
    correction.addPoint(ras(correction, 20, 10, 6))
    correction.addPoint(ras(correction, 30, 10, 6), positive=False)
    settle()
    assert (
        correction.session.current.start == "nothing" and correction.session.preview[6].sum() > 50
    )
    correction.movePrompt(0, ras(correction, 25, 20, 6))
    correction.movePrompt(0, ras(correction, 26, 21, 6), isGoingOn=True)
    settle()
    assert (correction.session.preview[6] == disc(21, 26)).all()
    correction.undo()
    assert correction.session.current.prompts[0].at == pytest.approx((20, 10, 6))
    correction.redo()
    correction.deletePrompt(1)
    correction.addBox(ras(correction, 2, 3, 6), ras(correction, 8, 5, 6))
    correction.addBox(ras(correction, 2, 3, 6), ras(correction, 9, 7, 6))
    kinds = [each.kind for each in correction.session.current.prompts]
    assert kinds == ["point", "box"]
    correction.movePrompt(1, ras(correction, 0, 0, 6), corner=0)
    settle()
    expected = disc(21, 26)
    expected[:8, :10] = True
    assert (correction.session.preview[6] == expected).all()
    correction.clearPrompts()
    assert correction.session.preview == {} and correction.session.current.prompts == ()
    correction.undo()
    settle()
    assert (correction.session.preview[6] == expected).all()
    with pytest.raises(ValueError, match="no such prompt"):
        correction.deletePrompt(7)


def test_what_cannot_be_is_refused_in_words_and_changes_nothing(opened, nodes, settle):
    correction = opened()
    for bad, words in (
        ((1e4, 0, 0), "outside"),
        ((np.nan, 0, 0), "three coordinates"),
        ((1, 2), "three coordinates"),
    ):
        with pytest.raises(ValueError, match=words):
            correction.addPoint(bad)
    first = ras(correction, 5, 5, 2)
    with pytest.raises(ValueError, match="no area"):
        correction.addBox(first, ras(correction, 20, 5.2, 2))
    with pytest.raises(ValueError, match="no area"):
        # The worker would refuse it, and with it every prompt beside it.
        correction.addBox(first, ras(correction, 20, 5.9, 2))
    with pytest.raises(ValueError, match="no slice 40"):
        correction.addPoint(first, number=40)
    with pytest.raises(ValueError, match="no axial slice -1"):
        correction.look(-1)
    correction.look(8)
    with pytest.raises(ValueError, match="no mask to accept"):
        correction.accept()
    with pytest.raises(ValueError, match="Accept a slice first"):
        correction.propagate(2)
    with pytest.raises(ValueError, match="at least one"):
        correction.propagate(0)
    with pytest.raises(ValueError, match="two slices"):
        correction.fillBetween()
    with pytest.raises(ValueError, match="Only a tuned model"):
        correction.nextUncertain()
    with pytest.raises(ValueError, match="no start"):
        correction.startFrom("anywhere")
    assert correction.session.current.prompts == () and not correction.session.history.canUndo()
    correction.addBox(first, ras(correction, 20, 15, 2))
    with pytest.raises(ValueError, match="no area"):
        correction.movePrompt(0, ras(correction, 5, 15, 2), corner=0)
    settle()
    assert correction.session.current.prompts[0].corners[0] == pytest.approx((5, 5, 2))


def test_what_cannot_be_opened_is_refused_in_words(correction, nodes, monkeypatch, tmp_path):
    import slicer

    volume, segmentation = nodes
    pretend(monkeypatch)
    with pytest.raises(ValueError, match="No correction is open"):
        correction.addPoint((0, 0, 0))
    with pytest.raises(ValueError, match="segment was removed"):
        correction.open(volume, segmentation, "absent")
    with pytest.raises(ValueError, match="volume node is needed"):
        correction.open(segmentation, segmentation, "liver")
    with pytest.raises(ValueError, match="no start"):
        correction.open(volume, segmentation, segment_id(segmentation, "liver"), start="x")
    from SAMFineTuneLib.errors import InputError

    with pytest.raises(InputError):
        correction.open(volume, segmentation, segment_id(segmentation, "liver"), model="absent")
    monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "file" / "x"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the job folder"):
        correction.open(volume, segmentation, segment_id(segmentation, "liver"))
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Void")
    with pytest.raises(ValueError, match="no voxels"):
        correction.open(empty, segmentation, segment_id(segmentation, "liver"))
    assert not correction.session.isOpen


def test_masks_are_carried_on_shown_and_kept_as_one_step(opened, nodes, settle):
    volume, segmentation = nodes
    correction = opened()
    before = held(segmentation, "liver", volume)
    correction.look(4)
    correction.accept()
    assert (
        correction.session.accepted == {4} and (held(segmentation, "liver", volume) == before).all()
    )
    correction.propagate(3)
    assert correction.isPropagating
    with pytest.raises(ValueError, match="already"):
        correction.propagate()
    settle()
    # Slice 3 holds the same already.
    assert sorted(correction.session.preview) == [1, 2, 5, 6, 7]
    assert (
        "to 5 slices from 1 to 7. Accept" in correction.status.text
        and "ends there." in correction.status.text
    )
    assert (held(segmentation, "liver", volume) == before).all()
    correction.clearPrompts()
    assert correction.session.preview == {} and "dropped" in correction.status.text
    correction.undo()
    assert sorted(correction.session.preview) == [1, 2, 5, 6, 7]
    correction.accept()
    after = before.copy()
    after[1:8] = before[4]
    assert (held(segmentation, "liver", volume) == after).all()
    assert correction.session.accepted == {1, 2, 4, 5, 6, 7}
    correction.undo()
    assert (held(segmentation, "liver", volume) == before).all()
    assert sorted(correction.session.preview) == [
        1,
        2,
        5,
        6,
        7,
    ] and correction.session.accepted == {4}
    correction.redo()
    assert (held(segmentation, "liver", volume) == after).all()


def test_a_mask_that_was_carried_on_is_corrected_before_it_is_kept(opened, nodes, settle):
    volume, segmentation = nodes
    correction = opened(start="nothing")
    correction.look(4)
    correction.accept()
    correction.propagate(2)
    settle()
    assert sorted(correction.session.preview) == [2, 5, 6]
    carried = correction.session.preview[5].copy()
    correction.addPoint(ras(correction, 30, 15, 5))
    assert correction.session.current.start == "given"
    correction.accept()
    settle()
    after = held(segmentation, "liver", volume)
    assert (after[5] == (carried | disc(15, 30))).all() and (after[6] == carried).all()
    correction.undo()
    assert sorted(correction.session.preview) == [2, 5, 6] and correction.session.preview[5][15, 30]
    correction.undo()
    assert (correction.session.preview[5] == carried).all() and not correction.session.preview[5][
        15, 30
    ]


def test_between_accepted_slices_is_filled(opened, nodes, settle):
    volume, segmentation = nodes
    correction = opened(start="nothing")
    for number in (1, 7):
        correction.addPoint(ras(correction, 25, 20, number))
        settle()
        correction.accept()
    correction.fillBetween()
    settle()
    assert sorted(correction.session.preview) == [2, 3, 4, 5, 6]
    correction.accept()
    mask = held(segmentation, "liver", volume)
    assert (mask[1:8] == mask[1]).all() and not mask[0].any() and not mask[8].any()


def test_accept_waits_for_the_mask_that_is_sought(opened, nodes, process_events, settle):
    volume, segmentation = nodes
    correction = opened("slow", start="nothing")
    correction.addPoint(ras(correction, 25, 20, 7))
    correction.accept()
    assert "as soon as" in correction.status.text and correction.session.accepted == set()
    # Who is quick is on another slice by then.
    correction.look(2)
    process_events(lambda: correction.session.accepted)
    assert correction.session.accepted == {7} and held(segmentation, "liver", volume)[7].any()
    assert correction.session.number == 2 and not held(segmentation, "liver", volume)[2].any()


def test_nothing_is_accepted_once_its_prompts_are_gone(opened, nodes, settle):
    volume, segmentation = nodes
    correction = opened("slow", start="nothing")
    before = held(segmentation, "liver", volume)
    correction.addPoint(ras(correction, 25, 20, 7))
    correction.accept()
    correction.undo()
    assert not correction.isWorking
    correction.addPoint(ras(correction, 10, 20, 7))
    settle()
    assert (
        correction.session.accepted == set()
        and (held(segmentation, "liver", volume) == before).all()
    )


def test_losses_of_other_segments_are_summed_up(opened, nodes, settle):
    correction = opened(start="nothing")
    correction.addPoint(ras(correction, 33, 33, 4))
    settle()
    correction.accept()
    correction.propagate(2)
    settle()
    correction.accept()
    assert len(correction.edits) == 2
    lost = sum(edit.lostVoxels["cyst"] for edit in correction.edits)
    assert correction.status.text.endswith(f"Taken from other segments: cyst {lost} voxels.")


def carried_on_both_sides(correction, settle) -> None:
    """Slices 1, 2 and 5, 6, 7 are to be accepted."""
    correction.look(4)
    correction.accept()
    correction.propagate(3)
    settle()
    assert sorted(correction.session.preview) == [1, 2, 5, 6, 7]


def test_slices_apart_are_one_step_of_the_segment_editor(opened, nodes, settle, monkeypatch):
    from types import SimpleNamespace

    import slicer

    volume, segmentation = nodes
    saved = []
    editor = SimpleNamespace(
        segmentationNodeID=segmentation.GetID,
        saveStateForUndo=lambda: saved.append(held(segmentation, "liver", volume)),
    )
    widget = SimpleNamespace(editor=editor)
    monkeypatch.setattr(slicer.modules, "SegmentEditorWidget", widget, raising=False)
    correction = opened()
    before = held(segmentation, "liver", volume)
    carried_on_both_sides(correction, settle)
    correction.accept()
    assert len(saved) == 1 and (saved[0] == before).all()
    assert (held(segmentation, "liver", volume) != before).any()


def test_surfaces_are_made_anew_once_for_slices_apart(opened, nodes, settle):
    volume, segmentation = nodes
    segmentation.CreateClosedSurfaceRepresentation()
    correction = opened()
    carried_on_both_sides(correction, settle)
    liver = segment_id(segmentation, "liver")
    surfaces = segmentation.GetSegmentation().GetSegment(liver)

    def surface():
        return surfaces.GetRepresentation("Closed surface")

    bounds, seen = surface().GetBounds(), {surface().GetMTime()}
    event = segmentation.GetSegmentation().RepresentationModified
    segmentation.AddObserver(event, lambda caller, event: seen.add(surface().GetMTime()))
    correction.accept()
    # Voxels are added and none are taken away; else there would be two.
    assert len(seen) == 2
    after = held(segmentation, "liver", volume)
    assert (after[1:8] == after[4]).all() and not after[0].any()
    correction.undo()
    assert len(seen) == 3 and surface().GetBounds() == pytest.approx(bounds)


def test_the_latest_prompts_win(opened, settle):
    correction = opened("slow", start="nothing")
    for i in (10, 20, 30):
        correction.addPoint(ras(correction, i, 20, 7))
    settle()
    expected = disc(20, 10) | disc(20, 20) | disc(20, 30)
    assert (correction.session.preview[7] == expected).all()


def test_a_model_shows_its_own_mask_and_says_where_it_is_uncertain(
    opened, nodes, tmp_path, monkeypatch, settle, process_events
):
    from Testing.support.model_files import write_model

    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path))
    write_model(tmp_path / "tuned.safetensors", ["model"])
    _volume, segmentation = nodes
    segment = segmentation.GetSegmentation().GetSegment(segment_id(segmentation, "liver"))
    correction = opened(model="tuned")
    assert correction.session.label is None
    # What an apply calls a structure of a model that has no name for it.
    segment.SetName("Segment_2")
    assert correction.session.label == 2
    segment.SetName("model")
    assert correction.session.label == 1
    correction.look(0)
    settle()
    assert correction.session.current.start == "model" and correction.session.preview[0].sum() == 9
    correction.look(4)
    settle()
    assert correction.session.preview == {}
    for number in (8, 7):
        correction.nextUncertain()
        process_events(lambda number=number: correction.session.number == number)
    assert "least certain" in correction.status.text
    settle()
    correction.accept()
    assert correction.session.accepted == {7}
    correction.look(8)
    correction.startFrom("nothing")
    assert correction.session.preview == {}


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """The file of a tuned model that finds what the pretended worker finds."""
    from Testing.support.model_files import write_model

    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path))
    return write_model(tmp_path / "tuned.safetensors", ["model"])


@pytest.fixture
def model_segment(nodes):
    """The segment liver, which has the name of the model's structure."""
    segment = nodes[1].GetSegmentation().GetSegment(segment_id(nodes[1], "liver"))
    segment.SetName("model")
    yield segment


@pytest.fixture
def opened_with_model(tuned, correction, nodes, model_segment, monkeypatch, settle):
    """Opens a session with the tuned model; slice 7 is in view."""

    def start(**more):
        pretend(monkeypatch)
        correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned", **more)
        settle()
        correction.look(7)
        settle()
        return correction

    return start


def test_a_slice_that_was_accepted_is_not_called_in_question(opened_with_model, nodes, settle):
    correction = opened_with_model(start="model")
    correction.addPoint(ras(correction, 3, 3, 7), positive=False)
    settle()
    correction.accept()
    correction.look(8)
    settle()
    assert correction.session.preview[8].any()
    correction.look(7)
    settle()
    assert correction.session.preview == {} and correction.session.accepted == {7}
    correction.addPoint(ras(correction, 25, 20, 7))
    settle()
    assert correction.session.current.start == "model" and correction.session.preview[7][20, 25]


def test_what_was_carried_on_takes_the_place_of_the_models_own_mask(
    opened_with_model, nodes, settle
):
    correction = opened_with_model()
    assert correction.session.current.start == "model" and correction.session.preview[7].sum() == 9
    correction.look(4)
    settle()
    correction.accept()
    correction.propagate(3)
    settle()
    carried = correction.session.propagated[7]
    correction.look(7)
    settle()
    assert carried.sum() > 9 and (correction.session.preview[7] == carried).all()
    correction.addPoint(ras(correction, 30, 15, 7))
    settle()
    assert correction.session.current.start == "given"
    assert (correction.session.preview[7] == (carried | disc(15, 30))).all()
    correction.undo()
    settle()
    correction.accept()
    assert (held(nodes[1], "model", nodes[0])[7] == carried).all()
    correction.undo()
    correction.undo()
    correction.look(4)
    correction.look(7)
    settle()
    assert correction.session.propagated == {} and correction.session.preview[7].sum() == 9


def test_what_was_painted_beside_the_models_own_mask_survives_its_accept(
    opened_with_model, nodes, model_segment
):
    correction = opened_with_model()
    model_segment.SetName("liver")
    paint(nodes, 7, (30, 35), (2, 7))
    correction.accept()
    expected = np.zeros(SHAPE[1:], bool)
    expected[2:5, 2:5] = expected[30:35, 2:7] = True
    assert (held(nodes[1], "liver", nodes[0])[7] == expected).all()
    correction.undo()
    expected[2:5, 2:5] = False
    assert (held(nodes[1], "liver", nodes[0])[7] == expected).all()


def test_a_segment_that_is_renamed_stays_the_structure_it_was(
    tuned, correction, nodes, model_segment, monkeypatch, settle
):
    pretend(monkeypatch)
    correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned")
    settle()
    correction.look(0)
    model_segment.SetName("liver of Monday")
    correction.addPoint(ras(correction, 25, 20, 0))
    settle()
    assert correction.session.label == 1 and correction.status.problem == ""
    assert correction.session.preview[0][3, 3] and correction.session.preview[0][20, 25]


def test_a_model_that_was_replaced_is_read_anew(
    tuned, correction, nodes, model_segment, monkeypatch, settle
):
    pretend(monkeypatch)
    correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned")
    settle()
    first = correction.session.processID
    correction.close(keepWorker=True)
    correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned")
    assert correction.session.processID == first
    correction.close(keepWorker=True)
    os.utime(tuned, ns=(1, 1))
    correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned")
    settle()
    assert correction.session.state == "ready" and correction.session.processID != first


@pytest.mark.parametrize("behaviour", ["die", "die+garbage"])
def test_a_worker_that_dies_is_started_again_and_nothing_is_lost(opened, nodes, settle, behaviour):
    correction = opened(behaviour, start="segment")
    heard = Heard(correction)
    correction.addPoint(ras(correction, 25, 20, 4))
    settle()
    mask = held(nodes[1], "liver", nodes[0])[4] | disc(20, 25)
    assert (correction.session.preview[4] == mask).all() and "started again" in heard.said
    assert "RuntimeError: pretended" in heard.said
    correction.accept()
    assert correction.session.accepted == {4}


def test_a_worker_that_is_killed_between_question_and_answer(opened, settle):
    correction = opened("slow", start="nothing")
    first = correction.session.processID
    correction.addPoint(ras(correction, 25, 20, 4))
    psutil.Process(first).kill()
    settle()
    assert (
        correction.session.preview[4] == disc(20, 25)
    ).all() and correction.session.processID != first


def test_a_second_death_closes_the_session_in_words(opened, nodes, process_events):
    volume, segmentation = nodes
    before = held(segmentation, "liver", volume)
    correction = opened("die_always")
    correction.addPoint(ras(correction, 25, 20, 4))
    process_events(lambda: not correction.session.isOpen, 20)
    assert (
        "RuntimeError: pretended" in correction.status.problem
        and "closed" in correction.status.problem
    )
    assert (held(segmentation, "liver", volume) == before).all()
    process_events(lambda: session_folders() == [])


def test_a_worker_that_cannot_start_is_told(opened):
    correction = opened("leave")
    assert (
        not correction.session.isOpen
        and "ImportError: no network here" in correction.status.problem
    )


def test_a_refusal_keeps_the_session(opened, settle, process_events):
    correction = opened("refuse")
    correction.addPoint(ras(correction, 25, 20, 4))
    process_events(lambda: correction.status.problem)
    assert correction.status.problem == "No. Ask another." and correction.session.isOpen
    assert not correction.isWorking
    correction.look(7)
    correction.addPoint(ras(correction, 25, 20, 7))
    process_events(lambda: not correction.isWorking)
    with pytest.raises(ValueError, match="no mask to accept"):
        correction.accept()


def test_the_folder_of_an_open_session_is_in_use(opened):
    from SAMFineTuneLib.jobs.storage import clear_storage, storage_used

    opened()
    assert storage_used().running == 1 and storage_used().other_jobs == []
    clear_storage()
    (folder,) = session_folders()
    assert (folder / "session.json").is_file()


def test_slicer_stays_alive_while_a_large_volume_is_read(
    correction, scene, monkeypatch, process_events
):
    from Testing.support.heartbeat import Heartbeat

    pretend(monkeypatch)
    shape = (120, 512, 512)
    volume = add_volume(np.zeros(shape, np.int16), placement())
    segmentation = add_segmentation(volume, {"liver": box(shape, (3, 5), (10, 20), (10, 20))})
    process_events()
    heartbeat = Heartbeat()
    correction.open(volume, segmentation, segment_id(segmentation, "liver"))
    wait_until_idle(correction, process_events)
    for number in (60, 61):
        correction.addPoint(ras(correction, 200, 300, number))
        wait_until_idle(correction, process_events)
    correction.accept()
    assert heartbeat.stop() < 0.25 and correction.session.accepted == {61}


def test_a_folder_that_is_removed_ends_the_session_at_the_next_death(opened, process_events):
    correction = opened("die")
    for folder in session_folders():
        shutil.rmtree(folder)
    correction.addPoint(ras(correction, 25, 20, 4))
    process_events(lambda: not correction.session.isOpen, 20)
    assert "folder was removed" in correction.status.problem


def test_a_full_disk_is_told(correction, nodes, monkeypatch, process_events):
    import errno

    from SAMFineTunePanel.scene import raw_nrrd

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    pretend(monkeypatch)
    monkeypatch.setattr(raw_nrrd, "write", full)
    correction.open(*nodes, segment_id(nodes[1], "liver"))
    process_events(lambda: not correction.session.isOpen)
    assert "No space left" in correction.status.problem and session_folders() == []


@pytest.mark.parametrize("what", ["volume", "segmentation", "segment"])
def test_what_is_removed_closes_the_session(opened, nodes, process_events, what):
    import slicer

    volume, segmentation = nodes
    correction = opened()
    correction.addPoint(ras(correction, 25, 20, 4))
    if what == "segment":
        segmentation.GetSegmentation().RemoveSegment(segment_id(segmentation, "liver"))
    else:
        slicer.mrmlScene.RemoveNode(volume if what == "volume" else segmentation)
    process_events(lambda: not correction.session.isOpen)
    assert "removed" in correction.status.problem
    process_events(lambda: session_folders() == [])


def test_a_prompt_right_after_a_removal_is_refused(opened, nodes):
    import slicer

    correction = opened()
    place = ras(correction, 25, 20, 4)
    slicer.mrmlScene.RemoveNode(nodes[1])
    with pytest.raises(ValueError, match="removed"):
        correction.addPoint(place)
    assert not correction.session.isOpen


def test_closing_the_scene_closes_the_session(opened, scene, process_events):
    correction = opened()
    correction.addPoint(ras(correction, 25, 20, 4))
    scene.Clear(0)
    assert not correction.session.isOpen and correction.status.problem == ""
    process_events(lambda: session_folders() == [])


def test_a_moved_volume_is_followed(opened, nodes, settle, process_events):
    volume, _segmentation = nodes
    correction = opened(start="nothing")
    process = correction.session.processID
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    heard = Heard(correction)
    add_transform(placement(origin=(100.0, 0.0, 0.0)), volume)
    process_events(lambda: "prompts" in heard.events)
    assert correction.session.processID == process and correction.session.isOpen
    correction.addPoint(ras(correction, 10, 20, 6))
    settle()
    assert (correction.session.preview[6] == (disc(20, 25) | disc(20, 10))).all()


def test_an_edited_volume_is_read_anew_and_prompts_stay(opened, nodes, settle, process_events):
    import slicer

    volume, _segmentation = nodes
    correction = opened(start="nothing")
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    process, heard = correction.session.processID, Heard(correction)
    slicer.util.arrayFromVolume(volume)[:] = 7
    slicer.util.arrayFromVolumeModified(volume)
    process_events(lambda: "read anew" in heard.said)
    settle()
    assert correction.session.processID not in (0, process)
    assert (correction.session.preview[6] == disc(20, 25)).all()


def test_a_volume_of_another_size_closes_the_session(opened, nodes, settle, process_events):
    import slicer

    volume, _segmentation = nodes
    correction = opened()
    correction.addPoint(ras(correction, 25, 20, 4))
    settle()
    slicer.util.updateVolumeFromArray(volume, np.zeros((9, 20, 20), np.int16))
    process_events(lambda: not correction.session.isOpen)
    assert "another size" in correction.status.problem


def test_edits_of_others_are_not_taken_back(opened, nodes, settle):
    import slicer

    volume, segmentation = nodes
    correction = opened(start="nothing")
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    correction.accept()
    mask = held(segmentation, "liver", volume)
    mask[6, 20, 25] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), segmentation, segment_id(segmentation, "liver"), volume
    )
    with pytest.raises(ValueError, match="edited since"):
        correction.undo()
    assert (
        held(segmentation, "liver", volume) == mask
    ).all() and correction.session.history.canUndo()


def test_another_segment_uses_the_same_worker(opened, nodes, correction, settle):
    volume, segmentation = nodes
    opened(start="nothing")
    process = correction.session.processID
    correction.close(keepWorker=True)
    assert not correction.session.isOpen
    correction.open(volume, segmentation, segment_id(segmentation, "cyst"), start="nothing")
    assert correction.session.state == "ready" and correction.session.processID == process
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    correction.accept()
    assert held(segmentation, "cyst", volume)[6, 20, 25]


def test_coronal_slices(opened, nodes, settle):
    volume, segmentation = nodes
    correction = opened(start="nothing", orientation="coronal")
    assert (
        correction.session.segment.orientation == "coronal"
        and correction.session.segment.count == SHAPE[1]
    )
    correction.addPoint(ras(correction, 25, 20.2, 4))
    settle()
    correction.accept()
    changed = held(segmentation, "liver", volume)
    assert correction.session.accepted == {20} and changed[4, 20, 25] and not changed[4, 21, 25]


@pytest.fixture
def slice_views(layout_manager):
    import slicer

    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    yield
    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUp3DView)


def test_whoever_starts_sees_a_slice_to_click_on(slice_views, opened, nodes):
    import slicer
    from SAMFineTunePanel.scene.slice_view import sliceInView

    other = add_volume(np.zeros(SHAPE, np.int16), placement((1.0, 1.0, 1.0)))
    slicer.util.setSliceViewerLayers(background=other, fit=True)
    red = slicer.app.applicationLogic().GetSliceLogic(slicer.util.getNode("vtkMRMLSliceNodeRed"))
    red.GetSliceNode().SetOrientation("Axial")
    assert sliceInView(nodes[0], "axial").number is None
    correction = opened()
    assert correction.session.number == SHAPE[0] // 2 == sliceInView(nodes[0], "axial").number
    assert red.GetSliceCompositeNode().GetBackgroundVolumeID() == nodes[0].GetID()
    correction.close()
    red.GetSliceCompositeNode().SetBackgroundVolumeID(other.GetID())
    correction = opened()
    # The view lies along the volume already, which nobody saw.
    assert red.GetSliceCompositeNode().GetBackgroundVolumeID() == nodes[0].GetID()


@pytest.mark.parametrize("what", ["segment", "transform"])
def test_a_view_that_moves_after_a_removal_is_not_followed(
    what, slice_views, opened, nodes, process_events
):
    from SAMFineTunePanel.scene.slice_view import showSlice

    volume, segmentation = nodes
    correction = opened()
    if what == "segment":
        segmentation.GetSegmentation().RemoveSegment(segment_id(segmentation, "liver"))
    else:
        warp(segmentation)
    showSlice(volume, "axial", 7)
    process_events(lambda: not correction.session.isOpen)
    expected = {"segment": "was removed from", "transform": "not linear. Harden it"}[what]
    assert expected in correction.status.problem
    with pytest.raises(ValueError, match="No correction is open"):
        correction.look(2)


def warp(node) -> None:
    """Put a node under a transform that is not linear."""
    import slicer
    import vtk

    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    for setter, shift in ((spline.SetSourceLandmarks, 0.0), (spline.SetTargetLandmarks, 9.0)):
        points = vtk.vtkPoints()
        for corner in ((0, 0, 0), (90, 0, 0), (0, 90, 0), (0, 0, 90), (60 + shift, 60, 60)):
            points.InsertNextPoint(corner)
        setter(points)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(transform.GetID())


def test_only_the_slice_in_view_takes_clicks(slice_views, opened, nodes, settle, process_events):
    from SAMFineTunePanel.scene.slice_view import showSlice

    volume, _segmentation = nodes
    showSlice(volume, "axial", 6)
    correction = opened(start="nothing")
    assert correction.session.number == 6
    with pytest.raises(ValueError, match="shows slice 6"):
        correction.addPoint(ras(correction, 25, 20, 5))
    assert correction.session.number == 6 and correction.session.current.prompts == ()
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    showSlice(volume, "axial", 2)
    process_events(lambda: correction.session.number == 2)
    assert correction.session.preview == {}
    correction.undo()
    assert correction.session.number == 6 and correction.session.current.prompts == ()
    process_events()
    assert correction.session.number == 6
