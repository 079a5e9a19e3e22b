"""Predictions back into the scene: every voxel in its place, and others untouched."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.scene_builders import (
    add_segmentation,
    add_transform,
    add_volume,
    box,
    placement,
    segment_points,
    sorted_points,
    world_points,
)
from Testing.support.scene_geometries import LIVER, SHAPE, TURN, values

pytestmark = pytest.mark.usefixtures("module", "scene")


# What was predicted, back into the scene


def predicted(mask_by_value: dict[int, np.ndarray], volume, folder):
    """A labelmap as the worker leaves it."""
    from SAMFineTunePanel.scene.volume_writing import writeVolume

    from SAMFineTuneLib.volumes import Labelmap, read_volume, write_labelmap

    source = folder / "image.nrrd"
    for _ in writeVolume(volume, source):
        pass
    array = np.zeros(SHAPE, np.uint8)
    for value, mask in mask_by_value.items():
        array[mask] = value
    path = folder / "predicted.seg.nrrd"
    write_labelmap(path, Labelmap(array, read_volume(source).geometry), compress=False)
    return path


def bring(path, volume, segmentation, **names):
    from SAMFineTunePanel.jobs.result_import import PredictedStructures
    from SAMFineTunePanel.scene.structure_label import StructureLabel

    labels = [StructureLabel(number, name, (0.9, 0.1, 0.2), "") for name, number in names.items()]
    for _ in PredictedStructures(path, volume, segmentation, labels).steps():
        pass


@pytest.mark.parametrize(
    "target", ["new", "new under a transform", "another's", "another's under a transform"]
)
def test_predictions_come_back_to_their_place(ijk_to_ras, target, tmp_path):
    from SAMFineTunePanel.jobs.result_import import createSegmentation

    volume = add_volume(values(), ijk_to_ras)
    mask, second = box(SHAPE, **LIVER), box(SHAPE, (0, 10), (0, 2), (0, 20))
    if "under" in target:
        add_transform(TURN, volume)
    to_world = TURN @ ijk_to_ras if "under" in target else ijk_to_ras
    if target.startswith("new"):
        segmentation = createSegmentation(volume, "Result")
        assert segmentation.GetTransformNodeID() == volume.GetTransformNodeID()
    else:
        other = add_volume(values(), placement((3, 3, 3), origin=(-40.0, -40.0, -40.0)), "other")
        segmentation = add_segmentation(other, {"old": box(SHAPE, (1, 3), (1, 3), (1, 3))})
        old = segment_points(segmentation, "old")
    bring(
        predicted({1: mask, 7: second}, volume, tmp_path),
        volume,
        segmentation,
        liver=1,
        rim=7,
        absent=9,
    )
    assert np.allclose(
        segment_points(segmentation, "liver"), world_points(mask, to_world), atol=2e-3
    )
    assert np.allclose(
        segment_points(segmentation, "rim"), world_points(second, to_world), atol=2e-3
    )
    assert len(segment_points(segmentation, "absent")) == 0
    if not target.startswith("new"):
        assert np.allclose(segment_points(segmentation, "old"), old)


@pytest.mark.parametrize("slab_voxels", [1, 500, 1 << 20])
def test_other_segments_keep_every_voxel_and_undo_is_one_step(
    scene, tmp_path, slab_voxels, monkeypatch
):
    from SAMFineTunePanel.jobs import result_import as scene_import
    from SAMFineTunePanel.segment_editing.segmentation_undo import SegmentationUndo

    # Large structures are written in several pieces.
    monkeypatch.setattr(scene_import, "_SLAB_VOXELS", slab_voxels)
    volume = add_volume(values(), placement((1, 1, 3)))
    drawn = {
        "bone": box(SHAPE, (2, 8), (4, 13), (3, 10)),
        "liver": box(SHAPE, (3, 4), (5, 12), (4, 15)),
    }
    segmentation = add_segmentation(volume, drawn)
    undo = SegmentationUndo()
    undo.noteBefore(segmentation)
    bring(predicted({1: box(SHAPE, **LIVER)}, volume, tmp_path), volume, segmentation, liver=1)
    ras = placement((1, 1, 3))
    assert np.allclose(segment_points(segmentation, "bone"), world_points(drawn["bone"], ras))
    assert np.allclose(
        segment_points(segmentation, "liver"), world_points(box(SHAPE, **LIVER), ras)
    )
    assert undo.canUndo(segmentation)
    undo.undo(segmentation)
    for name, mask in drawn.items():
        assert np.allclose(segment_points(segmentation, name), world_points(mask, ras))
    assert not undo.canUndo(segmentation)
    with pytest.raises(ValueError, match="no apply to take back"):
        undo.undo(segmentation)


def shown_in_3d(volume):
    """Two segments with surfaces, displayed in a way of the user's own."""
    segmentation = add_segmentation(
        volume,
        {
            "bone": box(SHAPE, (2, 8), (4, 13), (3, 10)),
            "liver": box(SHAPE, (3, 5), (5, 12), (4, 15)),
        },
    )
    segmentation.CreateClosedSurfaceRepresentation()
    display = segmentation.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName3D("Closed surface")
    display.SetVisibility3D(True)
    display.SetSegmentVisibility3D(segmentation.GetSegmentation().GetNthSegmentID(0), False)
    display.SetSegmentOpacity3D(segmentation.GetSegmentation().GetNthSegmentID(1), 0.4)
    return segmentation


def display_settings(segmentation) -> list:
    display, segments = segmentation.GetDisplayNode(), segmentation.GetSegmentation()
    ids = [segments.GetNthSegmentID(number) for number in range(2)]
    return [
        display.GetPreferredDisplayRepresentationName3D(),
        display.GetDisplayRepresentationName3D(),
        display.GetVisibility3D(),
        [display.GetSegmentVisibility3D(each) for each in ids],
        [display.GetSegmentOpacity3D(each) for each in ids],
    ]


def surface(segmentation, name: str):
    segments = segmentation.GetSegmentation()
    segment = segments.GetSegment(segments.GetSegmentIdBySegmentName(name))
    return segment.GetRepresentation("Closed surface")


def test_surfaces_are_made_anew_once_for_a_whole_import(scene, tmp_path, monkeypatch):
    from SAMFineTunePanel.jobs import result_import as scene_import
    from SAMFineTunePanel.scene.structure_label import StructureLabel
    from SAMFineTunePanel.segment_editing.segmentation_undo import SegmentationUndo

    monkeypatch.setattr(scene_import, "_SLAB_VOXELS", 1)
    volume = add_volume(values(), placement())
    segmentation = shown_in_3d(volume)
    settings = display_settings(segmentation)
    bone, bounds = surface(segmentation, "bone"), surface(segmentation, "liver").GetBounds()
    undo = SegmentationUndo()
    undo.noteBefore(segmentation)
    path = predicted(
        {1: box(SHAPE, **LIVER), 2: box(SHAPE, (0, 2), (0, 3), (0, 3))}, volume, tmp_path
    )
    labels = [StructureLabel(1, "liver", (1, 0, 0), ""), StructureLabel(2, "new", (0, 1, 0), "")]
    made = set()
    for _ in scene_import.PredictedStructures(path, volume, segmentation, labels).steps():
        each = surface(segmentation, "liver")
        made.add(each.GetMTime() if each is not None else None)
    # While it is written there is none, whatever the number of slabs.
    assert len(made - {None}) <= 1 and None in made
    undo.noteAfter(segmentation)
    assert display_settings(segmentation) == settings
    assert surface(segmentation, "bone") is bone
    assert surface(segmentation, "new").GetNumberOfPoints() > 0
    low, high = surface(segmentation, "liver").GetBounds()[4:]
    assert low < 3 and high > 6
    undo.undo(segmentation)
    assert display_settings(segmentation) == settings
    assert surface(segmentation, "liver").GetBounds() == pytest.approx(bounds)
    assert surface(segmentation, "bone").GetNumberOfPoints() == bone.GetNumberOfPoints()
    assert sorted_names(segmentation) == ["bone", "liver"]
    drawn = world_points(box(SHAPE, (3, 5), (5, 12), (4, 15)), placement())
    assert np.allclose(segment_points(segmentation, "liver"), drawn)


def sorted_names(segmentation) -> list[str]:
    segments = segmentation.GetSegmentation()
    return sorted(segments.GetSegment(each).GetName() for each in segments.GetSegmentIDs())


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_surfaces_come_back_when_an_import_ends_early(scene, tmp_path, monkeypatch, end):
    from SAMFineTunePanel.jobs import result_import as scene_import
    from SAMFineTunePanel.scene.structure_label import StructureLabel

    monkeypatch.setattr(scene_import, "_SLAB_VOXELS", 1)
    volume = add_volume(values(), placement())
    segmentation = shown_in_3d(volume)
    settings = display_settings(segmentation)
    path = predicted({1: box(SHAPE, **LIVER)}, volume, tmp_path)
    label = StructureLabel(1, "liver", (1, 0, 0), "")
    steps = scene_import.PredictedStructures(path, volume, segmentation, [label]).steps()
    while surface(segmentation, "liver") is not None:
        next(steps)
    if end == "cancelled":
        steps.close()
    else:
        volume.SetAndObserveImageData(None)
        with pytest.raises(ValueError, match="no voxels"):
            list(steps)
    assert display_settings(segmentation) == settings
    # As far as it has come: the box of the structure was about to be written, slice by slice.
    low, high = surface(segmentation, "liver").GetBounds()[4:]
    assert low < 3 < high < 5
    assert surface(segmentation, "bone").GetNumberOfPoints() > 0


@pytest.mark.parametrize("target", ["new", "the user's"])
def test_a_saved_scene_leaves_the_undo_of_an_apply(scene, tmp_path, target):
    import slicer
    from SAMFineTunePanel.jobs.result_import import createSegmentation
    from SAMFineTunePanel.segment_editing import segmentation_undo

    volume = add_volume(values(), placement((1, 1, 3)))
    undo = segmentation_undo.SegmentationUndo()
    drawn = {
        "bone": box(SHAPE, (2, 8), (4, 13), (3, 10)),
        "liver": box(SHAPE, (3, 4), (5, 12), (4, 15)),
    }
    if target == "new":
        segmentation = createSegmentation(volume, "Result")
        undo.noteMade(segmentation)
    else:
        segmentation = add_segmentation(volume, drawn)
        undo.noteBefore(segmentation)
    found = {1: box(SHAPE, **LIVER), 2: box(SHAPE, (8, 10), (0, 3), (0, 9))}
    bring(predicted(found, volume, tmp_path), volume, segmentation, liver=1, rim=2, absent=3)
    undo.noteAfter(segmentation)
    layers = segmentation.GetSegmentation().GetNumberOfLayers("Binary labelmap")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    assert segmentation.GetSegmentation().GetNumberOfLayers("Binary labelmap") < layers
    assert undo.canUndo(segmentation)
    ras = placement((1, 1, 3))
    for name, value in (("liver", 1), ("rim", 2)):
        assert np.allclose(segment_points(segmentation, name), world_points(found[value], ras))
    undo.undo(segmentation)
    if target == "new":
        assert not slicer.mrmlScene.IsNodePresent(segmentation)
        return
    assert sorted_names(segmentation) == ["bone", "liver"]
    for name, mask in drawn.items():
        assert np.allclose(segment_points(segmentation, name), world_points(mask, ras))
    assert not undo.canUndo(segmentation)


def test_voxels_are_looked_at_once_for_each_change(scene, tmp_path, monkeypatch):
    import slicer
    from SAMFineTunePanel.segment_editing import segmentation_undo

    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"bone": box(SHAPE, (2, 8), (4, 13), (3, 10))})
    undo = segmentation_undo.SegmentationUndo()
    undo.noteBefore(segmentation)
    bring(predicted({1: box(SHAPE, **LIVER)}, volume, tmp_path), volume, segmentation, liver=1)
    undo.noteAfter(segmentation)
    looks = []
    checksum = segmentation_undo._checksum
    monkeypatch.setattr(
        segmentation_undo, "_checksum", lambda *each: looks.append(each) or checksum(*each)
    )
    assert undo.canUndo(segmentation) and undo.canUndo(segmentation) and looks == []
    segmentation.GetSegmentation().CollapseBinaryLabelmaps(False)
    bone = segmentation.GetSegmentation().GetSegmentIdBySegmentName("bone")
    liver = segmentation.GetSegmentation().GetSegmentIdBySegmentName("liver")
    image = segmentation.GetSegmentation().GetSegment(bone).GetRepresentation("Binary labelmap")
    image.Modified()
    assert undo.canUndo(segmentation) and 0 < len(looks) <= 2
    looks.clear()
    assert undo.canUndo(segmentation) and looks == []

    # One voxel more is an edit, wherever the labelmap begins; without it, the edit is none.
    before = box(SHAPE, **LIVER).astype(np.uint8)
    edited = before.copy()
    edited[0, 0, 0] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, segmentation, liver, volume)
    assert not undo.canUndo(segmentation)
    looks.clear()
    assert not undo.canUndo(segmentation) and looks == []
    slicer.util.updateSegmentBinaryLabelmapFromArray(before, segmentation, liver, volume)
    assert undo.canUndo(segmentation)
    moved = np.roll(before, 1, axis=2)
    slicer.util.updateSegmentBinaryLabelmapFromArray(moved, segmentation, liver, volume)
    assert not undo.canUndo(segmentation)


def test_undoing_a_new_segmentation_takes_it_away(scene):
    import slicer
    from SAMFineTunePanel.jobs.result_import import createSegmentation
    from SAMFineTunePanel.segment_editing.segmentation_undo import SegmentationUndo

    undo = SegmentationUndo()
    made = createSegmentation(add_volume(values(), placement()), "Result")
    undo.noteMade(made)
    undo.undo(made)
    assert not slicer.mrmlScene.IsNodePresent(made)


def test_a_volume_that_was_exchanged_meanwhile_is_refused(scene, tmp_path):
    import slicer
    from SAMFineTunePanel.jobs.result_import import createSegmentation

    volume = add_volume(values(), placement())
    path = predicted({1: box(SHAPE, **LIVER)}, volume, tmp_path)
    segmentation = createSegmentation(volume, "Result")
    slicer.util.updateVolumeFromArray(volume, np.zeros((3, 4, 5), np.int16))
    with pytest.raises(ValueError, match="CT was changed"):
        bring(path, volume, segmentation, liver=1)


def test_uncertainty_comes_as_a_volume_over_the_image(ijk_to_ras, tmp_path):
    import slicer
    import vtk
    from SAMFineTunePanel.jobs.result_import import UncertaintyVolume
    from SAMFineTunePanel.scene.volume_writing import writeVolume

    from SAMFineTuneLib.volumes import read_volume, write_volume

    volume = add_volume(values(), ijk_to_ras)
    add_transform(TURN, volume)
    for _ in writeVolume(volume, tmp_path / "image.nrrd"):
        pass
    doubt = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    write_volume(
        tmp_path / "doubt.nrrd",
        doubt,
        read_volume(tmp_path / "image.nrrd").geometry,
        compress=False,
    )
    uncertainty = UncertaintyVolume(tmp_path / "doubt.nrrd", volume)
    for _ in uncertainty.steps():
        pass
    assert np.array_equal(slicer.util.arrayFromVolume(uncertainty.node), doubt)
    corners = [[0, 0, 0], [19, 15, 9]]
    for corner in corners:
        points = []
        for node in (volume, uncertainty.node):
            matrix = vtk.vtkMatrix4x4()
            node.GetIJKToRASMatrix(matrix)
            points.append(matrix.MultiplyPoint([*corner, 1]))
        assert np.allclose(*points)
    assert uncertainty.node.GetTransformNodeID() == volume.GetTransformNodeID()


def test_points_are_compared_in_any_order():
    points = np.array([[1.0, 2, 3], [0, 5, 6]])
    assert np.array_equal(sorted_points(points), sorted_points(points[::-1]))
