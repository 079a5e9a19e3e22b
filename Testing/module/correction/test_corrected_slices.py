"""Correcting one slice after another: prompts, masks, accepting, undo, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.corrected_scene import (
    OBLIQUE,
    SHAPE,
    Heard,
    disc,
    held,
    paint,
    ras,
    segment_id,
)
from Testing.support.correction_workers import pretend
from Testing.support.scene_builders import add_segmentation, add_volume, box


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


def test_the_latest_prompts_win(opened, settle):
    correction = opened("slow", start="nothing")
    for i in (10, 20, 30):
        correction.addPoint(ras(correction, i, 20, 7))
    settle()
    expected = disc(20, 10) | disc(20, 20) | disc(20, 30)
    assert (correction.session.preview[7] == expected).all()


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
