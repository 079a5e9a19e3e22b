"""A corrected mask in its segment: what changes, and what must not."""

from __future__ import annotations

import numpy as np
import pytest

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


# What changes


@pytest.mark.parametrize("ijk_to_ras", [placement(), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("transform", ["none", "both", "volume", "segmentation"])
def test_a_slice_becomes_the_mask_and_nothing_else_changes(ijk_to_ras, transform):
    volume = add_volume(values(), ijk_to_ras)
    segmentation = add_segmentation(
        volume, {"liver": liver(), "spleen": box(SHAPE, (0, 6), (0, 2), (0, 16))}
    )
    if transform == "both":
        add_transform(MOVED, volume, segmentation)
    elif transform != "none":
        # The other one hardened: the same place in the world by another way.
        moved, still = (volume, segmentation) if transform == "volume" else (segmentation, volume)
        add_transform(MOVED, moved)
        add_transform(MOVED, still)
        still.HardenTransform()
    before = voxels(segmentation, volume)
    edit = write(volume, segmentation)
    after = voxels(segmentation, volume)
    assert np.array_equal(after["liver"], corrected(before["liver"], wanted()))
    assert np.array_equal(after["spleen"], before["spleen"])
    assert edit.changedVoxels == (after["liver"] != before["liver"]).sum() > 0
    assert edit.text == "" and edit.lostVoxels == {}
    edit.undo()
    assert same(voxels(segmentation, volume), before) and not edit.canUndo()
    edit.redo()
    assert same(voxels(segmentation, volume), after) and not edit.canRedo()


def test_a_small_box_leaves_the_rest_of_its_slice():
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": liver()})
    place = slice(2, 4), slice(4, 6), slice(8, 12)
    expected = liver()
    expected[place] = ~expected[place]
    write(volume, segmentation, expected[place], place)
    assert np.array_equal(voxels(segmentation, volume)["liver"], expected)


@pytest.mark.parametrize("fine", [False, True], ids=["own lattice", "finer lattice"])
def test_only_a_part_of_a_slice_changes(fine):
    from SAMFineTunePanel.segment_editing.masking_settings import MaskingSettings

    volume = add_volume(values(), placement())
    half = placement((0.5, 0.5, 1), origin=(-0.25, -0.25, 0))
    of = add_volume(np.zeros((6, 28, 32), np.int16), half) if fine else volume
    by = 2 if fine else 1

    def finer(mask):
        return mask.repeat(by, axis=1).repeat(by, axis=2)

    segmentation = add_segmentation(of, {"liver": finer(liver())})
    part = np.zeros_like(wanted())
    part[:, :, 7:] = True
    edit = planned(volume, segmentation, wanted(), SLICE, "liver", MaskingSettings(), part)
    assert np.array_equal(voxels(segmentation, of)["liver"], finer(liver()))
    carry_out([edit])
    expected = liver()
    expected[3, :, 7:] = wanted()[0, :, 7:]
    assert np.array_equal(voxels(segmentation, of)["liver"], finer(expected))
    edit.undo()
    assert np.array_equal(voxels(segmentation, of)["liver"], finer(liver()))


def test_a_segment_without_voxels_is_filled_and_emptied():
    import slicer

    volume = add_volume(values(), OBLIQUE)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Labels")
    segment = slicer.vtkSegment()
    segment.SetName("liver")
    segmentation.GetSegmentation().AddSegment(segment)
    segment.RemoveAllRepresentations()
    edit = write(volume, segmentation)
    full = voxels(segmentation, volume)["liver"]
    assert np.array_equal(full, corrected(np.zeros(SHAPE, bool), wanted()))
    edit.undo()
    assert not voxels(segmentation, volume)["liver"].any()
    edit.redo()
    write(volume, segmentation, np.zeros_like(wanted()))
    assert not voxels(segmentation, volume)["liver"].any()


def test_the_first_stroke_of_a_segment_is_seen_as_work_in_progress():
    import slicer

    logic = slicer.vtkSlicerSegmentationsModuleLogic
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": np.zeros(SHAPE, bool)})
    segment = segmentation.GetSegmentation().GetNthSegment(0)
    assert logic.GetSegmentStatus(segment) == logic.NotStarted
    write(volume, segmentation)
    assert logic.GetSegmentStatus(segment) == logic.InProgress


def test_a_mask_that_is_there_already_changes_nothing():
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": liver()})
    image = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    time_before = image.GetMTime()
    edit = write(volume, segmentation, liver()[SLICE])
    assert edit.changedVoxels == 0 and image.GetMTime() == time_before
    edit.undo()
    assert np.array_equal(voxels(segmentation, volume)["liver"], liver())


def test_surfaces_follow():
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": box(SHAPE, (1, 5), (2, 8), (3, 9))})
    segmentation.CreateClosedSurfaceRepresentation()
    segment = segmentation.GetSegmentation().GetNthSegment(0)

    def bounds():
        return segment.GetRepresentation("Closed surface").GetBounds()

    before = bounds()
    edit = write(volume, segmentation)
    grown = bounds()
    assert grown[1] > before[1] + 2 and grown[3] > before[3] + 2
    edit.undo()
    assert np.allclose(bounds(), before)
    # Inside of the labelmap too.
    points = segment.GetRepresentation("Closed surface").GetNumberOfPoints()
    hole = slice(2, 4), slice(4, 6), slice(5, 7)
    write(volume, segmentation, np.zeros((2, 2, 2), bool), hole)
    assert segment.GetRepresentation("Closed surface").GetNumberOfPoints() != points


def test_whoever_observes_a_segment_is_told():
    import vtk

    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"spleen": box(SHAPE, (3, 4), (8, 9), (6, 7))})
    add_segment = add_segmentation(volume, {"liver": liver()}, name="Other").GetSegmentation()
    segmentation.GetSegmentation().AddSegment(add_segment.GetNthSegment(0), "L")
    told = []

    @vtk.calldata_type(vtk.VTK_STRING)
    def note(_node, _event, segment_id):
        told.append(segment_id)

    event = segmentation.GetSegmentation().RepresentationModified
    segmentation.AddObserver(event, note)
    edit = write(volume, segmentation)
    spleen = segment_id(segmentation, "spleen")
    # The liver loses voxels and gains some.
    assert sorted(told) == sorted([spleen, "L", "L"])
    images = [
        segmentation.GetSegmentation().GetNthSegment(number).GetRepresentation("Binary labelmap")
        for number in (0, 1)
    ]
    before = [image.GetMTime() for image in images]
    edit.undo()
    assert len(told) == 6
    assert all(image.GetMTime() > old for image, old in zip(images, before, strict=True))


# Other lattices


@pytest.mark.parametrize("shift", [(2, 3, 1), (-2, -3, -1)])
def test_a_segmentation_of_a_cropped_or_a_larger_volume(shift):
    volume = add_volume(values(), OBLIQUE)
    moved = OBLIQUE.copy()
    moved[:3, 3] = (OBLIQUE @ [*shift, 1])[:3]
    other = add_volume(values(), moved)
    segmentation = add_segmentation(other, {"liver": liver()})
    before = voxels(segmentation, volume)["liver"]
    own = own_voxels(segmentation)
    edit = write(volume, segmentation)
    after = voxels(segmentation, volume)["liver"]
    assert np.array_equal(after, corrected(before, wanted()))
    edit.undo()
    assert same(own_voxels(segmentation), own)


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 1.0), (1.0, 1.0, 0.5), (2.0, 2.0, 1.0)])
def test_a_segment_stays_on_its_own_lattice(spacing):
    volume = add_volume(values(), placement())
    size = [int(np.ceil(n / s)) for n, s in zip(SHAPE[::-1], spacing, strict=True)]
    # Voxel edges agree with the volume's, so that each centre lies in one voxel of the volume.
    fine = add_volume(
        np.zeros(size[::-1], np.int16), placement(spacing, origin=np.array(spacing) / 2 - 0.5)
    )
    i, j, k = np.meshgrid(*[np.arange(n) for n in size], indexing="ij")
    to_volume = [
        np.floor((index + 0.5) * step).astype(int).transpose()
        for index, step in zip((i, j, k), spacing, strict=True)
    ]
    coarse = liver()[to_volume[2], to_volume[1], to_volume[0]]
    segmentation = add_segmentation(fine, {"liver": coarse})
    before = own_voxels(segmentation)
    assert np.array_equal(voxels(segmentation, fine)["liver"], coarse)
    edit = write(volume, segmentation)
    expected = corrected(liver(), wanted())[to_volume[2], to_volume[1], to_volume[0]]
    assert np.array_equal(voxels(segmentation, fine)["liver"], expected)
    edit.undo()
    assert same(own_voxels(segmentation), before)


def test_on_a_turned_lattice_only_voxels_inside_the_box_change():
    volume = add_volume(values(), placement())
    turned = placement((0.9, 0.9, 0.9), axis=(1, 1, 0), degrees=20, origin=(-3, -3, -3))
    other = add_volume(np.zeros((14, 22, 22), np.int16), turned)
    block = box((14, 22, 22), (3, 10), (4, 16), (5, 18))
    segmentation = add_segmentation(other, {"liver": block, "rest": ~block})
    write(volume, segmentation)
    after = voxels(segmentation, other)
    k, j, i = np.indices(block.shape)
    index = (
        np.linalg.inv(placement()) @ turned @ np.stack([i, j, k, np.ones_like(i)]).reshape(4, -1)
    )
    index = np.floor(index[:3] + 0.5).astype(int).reshape(3, *block.shape)
    size = np.array(SHAPE[::-1])[:, None, None, None]
    inside = ((index >= 0) & (index < size)).all(axis=0) & (index[2] == 3)
    mask = wanted()[0][np.clip(index[1], 0, 13), np.clip(index[0], 0, 15)]
    assert inside.sum() > 100
    assert np.array_equal(after["liver"], np.where(inside, mask, block))
    assert np.array_equal(after["rest"], ~block & ~(inside & mask))


def test_a_new_segment_takes_the_geometry_of_the_segmentation():
    volume = add_volume(values(), placement())
    fine = add_volume(
        np.zeros((6, 28, 32), np.int16), placement((0.5, 0.5, 1), origin=(-0.25, -0.25, 0))
    )
    segmentation = add_segmentation(fine, {"liver": np.zeros((6, 28, 32), bool)})
    write(volume, segmentation)
    expected = corrected(np.zeros(SHAPE, bool), wanted()).repeat(2, axis=1).repeat(2, axis=2)
    assert np.array_equal(voxels(segmentation, fine)["liver"], expected)
    assert len(own_voxels(segmentation)["liver"]) == 4 * wanted().sum()


# Refusals


def refused(volume, segmentation, words: str, *arguments, **rules) -> None:
    before = own_voxels(segmentation)
    with pytest.raises(ValueError, match=words):
        write(volume, segmentation, *arguments, **rules)
    assert same(own_voxels(segmentation), before)


def test_what_cannot_be_written_is_refused_in_words():
    import slicer
    import vtk

    volume = add_volume(values(), placement())
    segmentation = overlapping(volume)
    node = slicer.vtkMRMLSegmentationNode
    refused(volume, segmentation, "does not fit into volume CT", wanted()[:, :5])
    beyond = slice(6, 7), *SLICE[1:]
    refused(volume, segmentation, "does not fit into volume CT", wanted(), beyond)
    refused(volume, segmentation, "lost the segment", wanted(), SLICE, "nobody")
    gone = {"maskMode": node.EditAllowedInsideSingleSegment, "maskSegmentID": "gone"}
    refused(volume, segmentation, "inside one segment only, which is gone", **gone)
    refused(volume, segmentation, "of a volume that is gone", intensities=(0.0, 1.0))
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    warp.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    segmentation.SetAndObserveTransformNodeID(warp.GetID())
    refused(volume, segmentation, "not linear")
    segmentation.SetAndObserveTransformNodeID(None)
    closed = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetSegmentation().SetSourceRepresentationName(closed)
    with pytest.raises(ValueError, match="not made of voxels"):
        write(volume, segmentation)
