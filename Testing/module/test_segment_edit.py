"""A corrected mask in its segment: what changes, what must not, and the way back."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from Testing.support.scene_builders import (
    add_segmentation,
    add_transform,
    add_volume,
    box,
    placement,
    rotation,
)

pytestmark = pytest.mark.usefixtures("module", "scene")

SHAPE = (6, 14, 16)
SLICE = (slice(3, 4), slice(0, 14), slice(0, 16))
OBLIQUE = placement((0.7, 0.8, 2.5), axis=(1, 2, 3), degrees=35, origin=(12, -40, 7))
MOVED = rotation((0, 1, 1), 50)
MOVED[:3, 3] = 5, 6, 7


def values() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


# Voxels in two corners of the volume: labels then lie in place for every change inside of it.
CORNERS = False


@pytest.fixture(autouse=True, params=[False, True], ids=["small labelmap", "whole labelmap"])
def corners(request, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "CORNERS", request.param)


def liver() -> np.ndarray:
    mask = box(SHAPE, (1, 5), (2, 8), (3, 9))
    mask[0, 0, 0] = mask[-1, -1, -1] = CORNERS
    return mask


def wanted() -> np.ndarray:
    """On the slice: overlaps the liver's rectangle, adds and removes."""
    mask = np.zeros(SHAPE[1:], bool)
    mask[5:12, 5:13] = True
    return mask[None]


def segment_id(segmentation, name: str) -> str:
    return segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)


def voxels(segmentation, volume) -> dict[str, np.ndarray]:
    """Name -> whole array (k, j, i) on the volume's grid, read by Slicer's own function."""
    import slicer

    return {
        segmentation.GetSegmentation()
        .GetSegment(each)
        .GetName(): slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, each, volume).astype(
            bool
        )
        for each in segmentation.GetSegmentation().GetSegmentIDs()
    }


def own_voxels(segmentation) -> dict[str, np.ndarray]:
    """Name -> voxel indices of the segment on its own lattice, sorted."""
    import slicer
    from vtk.util.numpy_support import vtk_to_numpy

    found = {}
    for each in segmentation.GetSegmentation().GetSegmentIDs():
        segment = segmentation.GetSegmentation().GetSegment(each)
        image = segment.GetRepresentation("Binary labelmap")
        assert isinstance(image, slicer.vtkOrientedImageData)
        extent = image.GetExtent()
        shape = [extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in (2, 1, 0)]
        labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
        found[segment.GetName()] = np.argwhere(labels == segment.GetLabelValue()) + extent[4::-2]
    return found


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def share_layers(segmentation) -> None:
    """Segments that do not overlap into one labelmap, as after loading a file."""
    segmentation.GetSegmentation().CollapseBinaryLabelmaps(False)


def write(volume, segmentation, mask=None, place=SLICE, name="liver", **rules):
    """As an accept does, with the rules given, else those of Slicer's Segment Editor."""
    from SAMFineTunePanel.segment_editing.masking_settings import MaskingSettings, maskingSettingsOf
    from SAMFineTunePanel.segment_editing.segment_editor import slicersEditor

    editor = slicersEditor(segmentation)
    given = MaskingSettings(**rules) if rules else maskingSettingsOf(editor.node)
    edit = planned(volume, segmentation, mask, place, name, given)
    carry_out([edit], editor.saveState)
    return edit


def planned(volume, segmentation, mask, place, name, rules, where=None):
    from SAMFineTunePanel.segment_editing.segment_edit import plannedEdit

    mask = wanted() if mask is None else mask
    where = np.ones(mask.shape, bool) if where is None else where
    segment = segment_id(segmentation, name)
    return plannedEdit(volume, segmentation, segment, place, mask, where, rules)


def carry_out(edits, save_state=lambda: None) -> None:
    from SAMFineTunePanel.segment_editing.segment_edit import carryOutAll

    carryOutAll(edits, save_state)


def corrected(before: np.ndarray, mask: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """What a segment has to be afterwards."""
    full, inside = before.copy(), np.zeros(SHAPE, bool)
    full[SLICE], inside[SLICE] = mask, True
    if where is not None:
        inside &= where
    return np.where(inside, full, before)


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


# Other segments


def overlapping(volume):
    """The vessel overlaps the liver already; the spleen lies where the mask is to be."""
    return add_segmentation(
        volume,
        {
            "liver": liver(),
            "spleen": box(SHAPE, (0, 6), (9, 13), (6, 16)),
            "hidden": box(SHAPE, (2, 5), (4, 9), (10, 15)),
            "vessel": box(SHAPE, (0, 6), (5, 7), (2, 12)),
            "far": box(SHAPE, (0, 6), (0, 1), (0, 16)),
        },
    )


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
    assert after["liver"].sum() == 2 * CORNERS and np.array_equal(after["spleen"], spleen)


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


# Speed


def test_a_slice_of_a_large_segmentation_is_written_at_once():
    """About 2 ms; the limit leaves room for a busy machine."""
    shape = (300, 512, 512)
    volume = add_volume(np.zeros(shape, np.int16), placement())
    segmentation = add_segmentation(volume, {"liver": box(shape, (5, 295), (10, 500), (10, 500))})
    rng = np.random.default_rng(1)
    seconds = []
    for number in range(100, 109):
        mask = np.zeros((1, 512, 512), bool)
        j, i = rng.integers(20, 100, 2)
        mask[0, j : j + 350, i : i + 350] = True
        place = slice(number, number + 1), slice(0, 512), slice(0, 512)
        started = time.perf_counter()
        edit = write(volume, segmentation, mask, place)
        seconds.append(time.perf_counter() - started)
        assert edit.changedVoxels > 100_000
    print(f"median {np.median(seconds) * 1e3:.0f} ms, longest {max(seconds) * 1e3:.0f} ms")
    assert np.median(seconds) < 0.06
