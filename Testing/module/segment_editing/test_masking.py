"""A corrected mask in its segment: other segments, and the masking of Slicer's Segment Editor."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support import segment_edits
from Testing.support.scene_builders import (
    add_segmentation,
    add_transform,
    add_volume,
    box,
    placement,
)
from Testing.support.segment_edits import (
    MOVED,
    OBLIQUE,
    SHAPE,
    SLICE,
    carry_out,
    corrected,
    liver,
    overlapping,
    planned,
    same,
    segment_id,
    share_layers,
    values,
    voxels,
    wanted,
    write,
)

pytestmark = pytest.mark.usefixtures("module", "scene", "corners")


# Other segments


@pytest.mark.parametrize("shared", [False, True], ids=["own layers", "shared layers"])
@pytest.mark.parametrize(
    ("mode", "losers"),
    [
        ("OverwriteAllSegments", ["spleen", "hidden", "vessel"]),
        ("OverwriteVisibleSegments", ["spleen", "vessel"]),
        ("OverwriteNone", []),
    ],
)
def test_other_segments_give_way_as_the_overwrite_mode_says(shared, mode, losers):
    import slicer

    volume = add_volume(values(), OBLIQUE)
    segmentation = overlapping(volume)
    if shared:
        share_layers(segmentation)
        assert segmentation.GetSegmentation().GetNumberOfLayers() < 5
    segmentation.GetDisplayNode().SetSegmentVisibility(segment_id(segmentation, "hidden"), False)
    before = voxels(segmentation, volume)
    edit = write(volume, segmentation, overwriteMode=getattr(slicer.vtkMRMLSegmentEditorNode, mode))
    after = voxels(segmentation, volume)
    gained = after["liver"] & ~before["liver"]
    assert np.array_equal(after["liver"], corrected(before["liver"], wanted()))
    for name in ("spleen", "hidden", "vessel", "far"):
        expected = before[name] & ~gained if name in losers else before[name]
        assert np.array_equal(after[name], expected), name
    lost = {name: int((before[name] & gained).sum()) for name in losers}
    assert edit.lostVoxels == lost and all(lost.values())
    assert all(f"{name} {count} voxels" in edit.text for name, count in lost.items())
    for _round in range(2):
        edit.undo()
        assert same(voxels(segmentation, volume), before)
        edit.redo()
        assert same(voxels(segmentation, volume), after)


def test_taking_voxels_away_keeps_the_layers_as_they_are():
    import slicer

    volume = add_volume(values(), placement())
    spleen = box(SHAPE, (0, 6), (4, 6), (5, 7))
    ring = liver() & ~spleen
    segmentation = add_segmentation(volume, {"liver": ring, "spleen": spleen})
    share_layers(segmentation)
    none = slicer.vtkMRMLSegmentEditorNode.OverwriteNone
    write(volume, segmentation, np.zeros_like(wanted()), overwriteMode=none)
    assert segmentation.GetSegmentation().GetNumberOfLayers() == 1
    after = voxels(segmentation, volume)
    assert np.array_equal(after["liver"], corrected(ring, np.zeros_like(wanted())))
    assert np.array_equal(after["spleen"], spleen)


def test_only_voxels_of_the_segment_are_taken_away():
    from SAMFineTunePanel.segment_editing.segment_writing import removeVoxels
    from SAMFineTunePanel.segment_editing.segmentation_lattice import LatticeBox, latticeOf

    volume = add_volume(values(), placement())
    spleen = box(SHAPE, (0, 6), (4, 6), (5, 7))
    segmentation = add_segmentation(volume, {"liver": liver() & ~spleen, "spleen": spleen})
    share_layers(segmentation)
    name = segment_id(segmentation, "liver")
    inner = LatticeBox((1, 1, 1), (4, 12, 14), latticeOf(segmentation, name))
    removeVoxels(segmentation, name, inner, np.ones(inner.shape, bool))
    after = voxels(segmentation, volume)
    assert after["liver"].sum() == 2 * segment_edits.CORNERS and np.array_equal(
        after["spleen"], spleen
    )


def test_a_labelmap_grows_and_shrinks_with_its_segment():
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {})
    segmentation.GetSegmentation().AddEmptySegment("", "liver")
    image = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    write(volume, segmentation, wanted())
    assert image.GetExtent() == (5, 12, 5, 11, 3, 3)
    write(volume, segmentation, wanted(), (slice(1, 2), *SLICE[1:]))
    assert image.GetExtent() == (5, 12, 5, 11, 1, 3)
    write(volume, segmentation, np.zeros_like(wanted()))
    assert image.GetExtent() == (5, 12, 5, 11, 1, 1)


def test_two_segments_of_one_name_are_counted_together():
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(
        volume, {"liver": liver(), "a": box(SHAPE, (3, 4), (9, 11), (5, 7))}
    )
    segment_mask = box(SHAPE, (3, 4), (9, 11), (9, 11))
    other = add_segmentation(volume, {"a": segment_mask}, name="Other")
    segmentation.GetSegmentation().AddSegment(other.GetSegmentation().GetNthSegment(0), "second")
    assert write(volume, segmentation).lostVoxels == {"a": 8}


# Masking


@pytest.mark.parametrize(
    "mode",
    [
        "EditAllowedInsideAllSegments",
        "EditAllowedInsideVisibleSegments",
        "EditAllowedOutsideAllSegments",
        "EditAllowedOutsideVisibleSegments",
        "EditAllowedInsideSingleSegment",
    ],
)
@pytest.mark.parametrize("shared", [False, True], ids=["own layers", "shared layers"])
def test_editable_area_is_that_of_slicer(mode, shared):
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    volume = add_volume(values(), OBLIQUE)
    segmentation = overlapping(volume)
    if shared:
        share_layers(segmentation)
    segmentation.GetDisplayNode().SetSegmentVisibility(segment_id(segmentation, "hidden"), False)
    number = getattr(slicer.vtkMRMLSegmentationNode, mode)
    reference, mask = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
    reference.SetExtent(0, SHAPE[2] - 1, 0, SHAPE[1] - 1, 0, SHAPE[0] - 1)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    reference.SetGeometryFromImageToWorldMatrix(matrix)
    chosen = segment_id(segmentation, "vessel")
    segmentation.GenerateEditMask(
        mask, number, reference, segment_id(segmentation, "liver"), chosen
    )
    allowed = vtk_to_numpy(mask.GetPointData().GetScalars()).reshape(SHAPE) == 0
    before = voxels(segmentation, volume)
    edit = write(volume, segmentation, maskMode=number, maskSegmentID=chosen)
    after = voxels(segmentation, volume)
    assert np.array_equal(after["liver"], corrected(before["liver"], wanted(), allowed))
    assert not same(after, before)
    unlimited = (corrected(before["liver"], wanted()) != before["liver"]).sum()
    assert edit.keptByMasking == unlimited - edit.changedVoxels > 0
    assert f"kept {edit.keptByMasking} voxels" in edit.text
    edit.undo()
    assert same(voxels(segmentation, volume), before)


def test_editable_intensities():
    volume = add_volume(values(), OBLIQUE)
    segmentation = add_segmentation(volume, {"liver": liver()})
    add_transform(MOVED, volume, segmentation)
    # The ends of the range are values of voxels that are to be added.
    low, high = float(values()[3, 8, 5]), float(values()[3, 10, 12])
    edit = write(volume, segmentation, source=volume, intensities=(low, high))
    allowed = (values() >= low) & (values() <= high)
    after = voxels(segmentation, volume)["liver"]
    assert np.array_equal(after, corrected(liver(), wanted(), allowed))
    assert edit.changedVoxels > 0 and edit.keptByMasking > 0


def test_intensities_of_another_volume():
    volume = add_volume(values(), placement())
    half = np.zeros((6, 28, 32), np.float32)
    half[:, :, 16:] = 100.0
    other = add_volume(half, placement((0.5, 0.5, 1), origin=(-0.25, -0.25, 0)), name="PET")
    segmentation = add_segmentation(volume, {"liver": liver()})
    write(volume, segmentation, source=other, intensities=(50.0, 200.0))
    right = box(SHAPE, (0, 6), (0, 14), (8, 16))
    after = voxels(segmentation, volume)["liver"]
    assert np.array_equal(after, corrected(liver(), wanted(), right))


def test_the_rules_are_those_of_the_editor_that_edits_this_segmentation():
    import slicer
    from SAMFineTunePanel.segment_editing.masking_settings import maskingSettingsOf
    from SAMFineTunePanel.segment_editing.segment_editor import slicersEditor

    node = slicer.vtkMRMLSegmentationNode
    volume = add_volume(values(), placement())
    segmentation, another = overlapping(volume), overlapping(volume)

    def described(segmentation):
        rules = maskingSettingsOf(slicersEditor(segmentation).node)
        return (
            rules.maskMode,
            rules.maskSegmentID,
            rules.source,
            rules.intensities,
            rules.overwriteMode,
        )

    untouched = (node.EditAllowedEverywhere, "", None, None, 0)
    assert described(segmentation) == untouched
    editor = slicer.vtkMRMLSegmentEditorNode()
    editor.SetSingletonTag("SegmentEditor")
    editor = slicer.mrmlScene.AddNode(editor)
    editor.SetAndObserveSegmentationNode(segmentation)
    editor.SetAndObserveSourceVolumeNode(volume)
    assert described(segmentation) == (0, "", volume, None, 0)
    editor.SetMaskMode(node.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID(segment_id(segmentation, "vessel"))
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(10.0, 20.0)
    editor.SetOverwriteMode(editor.OverwriteNone)
    assert described(segmentation) == (
        node.EditAllowedInsideSingleSegment,
        segment_id(segmentation, "vessel"),
        volume,
        (10.0, 20.0),
        editor.OverwriteNone,
    )
    assert described(another) == untouched
    assert write(volume, segmentation).changedVoxels == 0
    assert write(volume, another).changedVoxels > 0


@pytest.mark.parametrize("masked", [False, True])
def test_slicer_itself_would_have_done_the_same(masked):
    """Slicer's own editing logic as the judge: what it adds and removes with the same choices."""
    import slicer
    import vtk
    from SAMFineTunePanel.segment_editing.masking_settings import maskingSettingsOf
    from vtk.util.numpy_support import numpy_to_vtk

    volume = add_volume(values(), OBLIQUE)
    mine, slicers = overlapping(volume), overlapping(volume)
    editor = slicer.vtkMRMLSegmentEditorNode()
    editor.SetSingletonTag("SegmentEditor")
    editor = slicer.mrmlScene.AddNode(editor)
    editor.SetAndObserveSegmentationNode(slicers)
    editor.SetAndObserveSourceVolumeNode(volume)
    editor.SetSelectedSegmentID(segment_id(slicers, "liver"))
    if masked:
        editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideVisibleSegments)
        editor.SetSourceVolumeIntensityMask(True)
        editor.SetSourceVolumeIntensityMaskRange(float(values()[3, 4, 0]), 5000.0)
    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.SetSegmentEditorNode(editor)
    target = corrected(liver(), wanted())
    for voxels_of_mode, mode in (
        (target & ~liver(), logic.ModificationModeAdd),
        (liver() & ~target, logic.ModificationModeRemove),
    ):
        image = slicer.vtkOrientedImageData()
        image.SetExtent(0, SHAPE[2] - 1, 0, SHAPE[1] - 1, 0, SHAPE[0] - 1)
        image.GetPointData().SetScalars(
            numpy_to_vtk(voxels_of_mode.astype(np.uint8).ravel(), deep=True)
        )
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        image.SetGeometryFromImageToWorldMatrix(matrix)
        logic.ModifySegmentByLabelmap(
            slicers, segment_id(slicers, "liver"), image, mode, True, False
        )
    carry_out([planned(volume, mine, wanted(), SLICE, "liver", maskingSettingsOf(editor))])
    expected, got = voxels(slicers, volume), voxels(mine, volume)
    assert not same(expected, voxels(overlapping(volume), volume))
    assert same(got, expected)
