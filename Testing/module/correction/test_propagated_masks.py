"""Masks that were propagated from a corrected slice to its neighbours."""

from __future__ import annotations

import pytest

from Testing.support.corrected_scene import disc, held, paint, ras, segment_id


def test_what_was_painted_while_masks_were_propagated_survives_their_accept(
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
    # One of them is corrected, and begins with what was propagated.
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


def test_masks_are_propagated_shown_and_kept_as_one_step(opened, nodes, settle):
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


def test_a_mask_that_was_propagated_is_corrected_before_it_is_kept(opened, nodes, settle):
    volume, segmentation = nodes
    correction = opened(start="nothing")
    correction.look(4)
    correction.accept()
    correction.propagate(2)
    settle()
    assert sorted(correction.session.preview) == [2, 5, 6]
    mask = correction.session.preview[5].copy()
    correction.addPoint(ras(correction, 30, 15, 5))
    assert correction.session.current.start == "given"
    correction.accept()
    settle()
    after = held(segmentation, "liver", volume)
    assert (after[5] == (mask | disc(15, 30))).all() and (after[6] == mask).all()
    correction.undo()
    assert sorted(correction.session.preview) == [2, 5, 6] and correction.session.preview[5][15, 30]
    correction.undo()
    assert (correction.session.preview[5] == mask).all() and not correction.session.preview[5][
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


def propagated_to_both_sides(correction, settle) -> None:
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
    propagated_to_both_sides(correction, settle)
    correction.accept()
    assert len(saved) == 1 and (saved[0] == before).all()
    assert (held(segmentation, "liver", volume) != before).any()


def test_surfaces_are_made_anew_once_for_slices_apart(opened, nodes, settle):
    volume, segmentation = nodes
    segmentation.CreateClosedSurfaceRepresentation()
    correction = opened()
    propagated_to_both_sides(correction, settle)
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
