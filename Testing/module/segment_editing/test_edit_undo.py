"""A corrected mask is taken back, also after others have been at work."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.scene_builders import add_segmentation, add_transform, add_volume, placement
from Testing.support.segment_edits import (
    MOVED,
    OBLIQUE,
    SLICE,
    carry_out,
    liver,
    overlapping,
    own_voxels,
    planned,
    same,
    segment_id,
    values,
    voxels,
    wanted,
    write,
)

pytestmark = pytest.mark.usefixtures("module", "scene", "corners")


# Undo after others have been at work


def test_undo_spares_what_was_edited_since():
    volume = add_volume(values(), placement())
    segmentation = overlapping(volume)
    first = write(volume, segmentation)
    second = write(volume, segmentation, np.zeros_like(wanted()))
    before = voxels(segmentation, volume)
    assert not first.canUndo() and "liver was edited since" in first.problemWithUndo()
    with pytest.raises(ValueError, match="edited since"):
        first.undo()
    assert same(voxels(segmentation, volume), before)
    second.undo()
    assert first.canUndo()
    elsewhere = slice(5, 6), slice(0, 2), slice(0, 2)
    write(volume, segmentation, np.ones((1, 2, 2), bool), elsewhere, name="hidden")
    first.undo()
    assert not first.canUndo() and first.canRedo()
    write(volume, segmentation, ~wanted(), name="spleen")
    assert not first.canRedo()


def test_undo_notices_voxels_that_came_back():
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": liver()})
    edit = write(volume, segmentation, np.zeros_like(wanted()))
    write(volume, segmentation, np.ones((1, 1, 1), bool), (slice(3, 4), slice(4, 5), slice(5, 6)))
    assert "liver was edited since" in edit.problemWithUndo()


def test_undo_of_what_is_gone_is_refused_in_words():
    import slicer

    volume = add_volume(values(), placement())
    segmentation = overlapping(volume)
    edit = write(volume, segmentation)
    segmentation.GetSegmentation().RemoveSegment(segment_id(segmentation, "spleen"))
    # A segment that gave way and is gone gets nothing back; the others do.
    edit.undo()
    assert np.array_equal(voxels(segmentation, volume)["liver"], liver())
    edit.redo()
    segmentation.GetSegmentation().RemoveSegment(segment_id(segmentation, "liver"))
    assert edit.problemWithUndo() == "Segment liver has been removed."
    slicer.mrmlScene.RemoveNode(segmentation)
    assert "removed from the scene" in edit.problemWithUndo()
    del segmentation
    assert "removed from the scene" in edit.problemWithUndo()


def test_undo_on_another_lattice_is_refused():
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": liver()})
    edit = write(volume, segmentation)
    image = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    image.SetSpacing(2.0, 1.0, 1.0)
    assert "geometry was changed" in edit.problemWithUndo()


def test_undo_follows_a_segmentation_that_was_moved():
    volume = add_volume(values(), OBLIQUE)
    segmentation = overlapping(volume)
    before = own_voxels(segmentation)
    edit = write(volume, segmentation)
    add_transform(MOVED, segmentation)
    edit.undo()
    assert same(own_voxels(segmentation), before)


class Editor:
    """The Segment Editor's widget, as far as it is asked."""

    def __init__(self, node_id: str) -> None:
        self.node_id, self.saved = node_id, 0

    def segmentationNodeID(self) -> str:
        return self.node_id

    def saveStateForUndo(self) -> None:
        self.saved += 1


def test_the_open_segment_editor_can_undo_too(monkeypatch):
    from types import SimpleNamespace

    import slicer

    volume = add_volume(values(), placement())
    segmentation, another = overlapping(volume), overlapping(volume)
    editor = Editor(segmentation.GetID())
    monkeypatch.setattr(
        slicer.modules, "SegmentEditorWidget", SimpleNamespace(editor=editor), raising=False
    )
    write(volume, segmentation)
    assert editor.saved == 1
    write(volume, segmentation)
    write(volume, another)
    assert editor.saved == 1


def test_edits_of_one_step_are_kept_once_by_the_editor_and_done_all_or_none(monkeypatch):
    from SAMFineTunePanel.segment_editing.masking_settings import MaskingSettings
    from SAMFineTunePanel.segment_editing.segment_edit import SegmentEdit

    volume = add_volume(values(), placement())
    segmentation = overlapping(volume)
    before = own_voxels(segmentation)
    saved = []

    def edits():
        return [
            planned(
                volume,
                segmentation,
                wanted(),
                (slice(k, k + 1), *SLICE[1:]),
                "liver",
                MaskingSettings(),
            )
            for k in (1, 3)
        ]

    def save() -> None:
        saved.append(same(own_voxels(segmentation), before))

    done = edits()
    carry_out(done, save)
    # Once, and before anything changed.
    assert saved == [True] and all(edit.isDone for edit in done)
    carry_out(edits(), save)
    assert saved == [True]
    for edit in reversed(done):
        edit.undo()
    carries_out = SegmentEdit.carryOut
    (_first, second) = refused = edits()

    def carry(edit) -> None:
        if edit is second:
            raise ValueError("Slicer could not write")
        carries_out(edit)

    monkeypatch.setattr(SegmentEdit, "carryOut", carry)
    with pytest.raises(ValueError, match="could not write"):
        carry_out(refused, save)
    assert same(own_voxels(segmentation), before)
