"""Scene to files: every voxel where it was in the world, or a refusal in words."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.scene_builders import (
    add_segmentation,
    add_transform,
    add_volume,
    box,
    file_points,
    placement,
    world_points,
)
from Testing.support.scene_geometries import LIVER, SHAPE, TURN, example, exported, values

pytestmark = pytest.mark.usefixtures("module", "scene")


@pytest.mark.parametrize(
    "under", ["nothing", "one transform", "the volume's alone", "the segmentation's alone"]
)
def test_voxels_stay_where_they_are_in_the_world(ijk_to_ras, under, tmp_path):
    array, mask = values(), box(SHAPE, **LIVER)
    volume = add_volume(array, ijk_to_ras)
    segmentation = add_segmentation(volume, {"liver": mask})
    moved = {
        "nothing": [],
        "one transform": [volume, segmentation],
        "the volume's alone": [volume],
        "the segmentation's alone": [segmentation],
    }[under]
    # A transform of one node alone keeps part of the structure in the volume.
    turn = TURN if len(moved) == 2 else placement(origin=(3.0, 2.0, 0.0))
    add_transform(turn, *moved)
    [(_entry, image, labels)] = exported([example(volume, segmentation)], tmp_path)
    assert np.array_equal(image.array, array)
    to_world = turn @ ijk_to_ras if volume in moved else ijk_to_ras
    assert np.allclose(
        file_points(image_as_labels(image), 1),
        world_points(np.ones(SHAPE, bool), to_world),
        atol=2e-3,
    )
    truth = world_points(mask, turn @ ijk_to_ras if segmentation in moved else ijk_to_ras)
    found = file_points(labels, 1)
    if len(moved) == 1:
        assert_nearest_voxels(found, truth, to_world)
    else:
        assert np.allclose(found, truth, atol=2e-3)
    assert labels.names == {1: "liver"}


def image_as_labels(image):
    from dataclasses import replace

    return replace(image, array=np.ones_like(image.array))


def assert_nearest_voxels(found: np.ndarray, truth: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    """Each voxel found is within a voxel of the truth, and all of it in the volume is found."""
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    nearest = np.array([np.linalg.norm(truth - point, axis=1).min() for point in found])
    assert nearest.max() <= np.linalg.norm(spacing) / 2 + 1e-3
    indices = np.linalg.inv(ijk_to_ras) @ np.c_[truth, np.ones(len(truth))].T
    inside = np.all(
        (indices[:3].T > -0.5) & (np.array(SHAPE[::-1]) - 0.5 > indices[:3].T), axis=1
    ).sum()
    assert abs(len(found) - inside) <= 0.15 * inside and inside > 50


def test_a_segmentation_on_a_finer_grid_than_the_volume(scene, tmp_path):
    coarse, fine = placement((2.0, 2.0, 4.0)), placement((1.0, 1.0, 4.0), origin=(-0.5, -0.5, 0.0))
    shape = (10, 32, 40)
    volume = add_volume(values(), coarse)
    drawn_on = add_volume(np.zeros(shape, np.int16), fine, "other")
    mask = box(shape, (3, 7), (10, 24), (8, 30))
    segmentation = add_segmentation(drawn_on, {"liver": mask})
    [(_entry, _, labels)] = exported([example(volume, segmentation)], tmp_path)
    expected = world_points(box(SHAPE, (3, 7), (5, 12), (4, 15)), coarse)
    assert np.allclose(file_points(labels, 1), expected)


def test_a_segmentation_made_of_surfaces(scene, tmp_path):
    import slicer

    volume = add_volume(values(), placement())
    mask = box(SHAPE, **LIVER)
    segmentation = add_segmentation(volume, {"liver": mask})
    closed = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetSegmentation().SetSourceRepresentationName(closed)
    segmentation.RemoveBinaryLabelmapRepresentation()
    [(_, _, labels)] = exported([example(volume, segmentation)], tmp_path)
    # A surface is smooth: the corners of the box are cut off.
    overlap = 2 * ((labels.array == 1) & mask).sum() / ((labels.array == 1).sum() + mask.sum())
    assert overlap > 0.85


def test_what_slicer_cannot_resample_is_told_in_words(scene):
    import slicer
    import vtk
    from SAMFineTunePanel.examples.example_slices import PaintedSlices, slicesOf

    volume = add_volume(values(), placement())
    # As from DICOM RT, where nothing is installed that makes voxels of contours.
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Contours")
    segmentation.GetSegmentation().SetSourceRepresentationName("Planar contour")
    segment = slicer.vtkSegment()
    segment.SetName("liver")
    segment.AddRepresentation("Planar contour", vtk.vtkPolyData())
    segmentation.GetSegmentation().AddSegment(segment)
    problem = slicesOf(example(volume, segmentation), PaintedSlices()).problem
    assert "Contours could not be brought onto volume CT. Check in" in problem


def test_resampling_leaves_no_trace_in_the_scene(scene):
    from SAMFineTunePanel.examples.example_slices import PaintedSlices, slicesOf

    volume = add_volume(values(), placement())
    other = add_volume(values(), placement((1.1, 1.1, 1.1)), "other")
    segmentation = add_segmentation(other, {"liver": box(SHAPE, **LIVER)})
    seen = []
    tags = [
        scene.AddObserver(event, lambda caller, event: seen.append(event))
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent)
    ]
    slices = slicesOf(example(volume, segmentation), PaintedSlices())
    for tag in tags:
        scene.RemoveObserver(tag)
    # Who follows the scene asks again after each of these.
    assert slices.labelled and seen == []


def test_several_segments_and_segmentations_of_one_volume(scene, tmp_path):
    volume = add_volume(values(), placement((1, 1, 3)))
    first = add_segmentation(
        volume,
        {
            "liver": box(SHAPE, **LIVER),
            "spleen": box(SHAPE, (3, 4), (0, 3), (0, 3)),
            "nothing": np.zeros(SHAPE),
        },
    )
    second = add_segmentation(
        volume,
        {"kidney": box(SHAPE, (1, 2), (0, 5), (0, 5)), "liver": box(SHAPE, (8, 9), (6, 9), (6, 9))},
    )
    written = exported(
        [example(volume, first), example(volume, second, complete=[1], empty=[0])], tmp_path
    )
    (entry, _, labels), (other, _, others) = written
    assert (
        entry["volume"] == other["volume"]
        and entry["labels"] == [1, 2]
        and other["labels"] == [1, 4]
    )
    assert labels.names == {1: "liver", 2: "spleen"} and others.names == {1: "liver", 4: "kidney"}
    assert set(np.unique(others.array)) == {0, 1, 4}
    assert (other["complete"], other["known_empty"], other["axis"]) == ([1], [0], "axial")


def test_chosen_segments_alone_are_written(scene, tmp_path):
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(
        volume, {"liver": box(SHAPE, **LIVER), "other": box(SHAPE, **LIVER)}
    )
    chosen = [segmentation.GetSegmentation().GetSegmentIdBySegmentName("liver")]
    [(_, _, labels)] = exported([example(volume, segmentation, segmentIDs=chosen)], tmp_path)
    assert labels.names == {1: "liver"} and np.allclose(
        labels.colours[1], (0.2, 0.5, 0.3), atol=1e-3
    )


def test_terminology_travels(scene, tmp_path):
    import slicer

    entry = (
        "Segmentation category and type - 3D Slicer General Anatomy list"
        "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^"
        "~Anatomic codes - DICOM master list~^^~^^"
    )
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": box(SHAPE, **LIVER)})
    segment = segmentation.GetSegmentation().GetNthSegment(0)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry)
    [(_, _, labels)] = exported([example(volume, segmentation)], tmp_path)
    assert labels.terminologies == {1: entry}


def test_a_volume_that_moves_while_it_is_written_is_refused(scene, tmp_path):
    from SAMFineTunePanel.examples.example_export import FinetuneInputs, structureLabels
    from SAMFineTunePanel.examples.example_slices import PaintedSlices

    volume = add_volume(values(), placement())
    examples = [example(volume, add_segmentation(volume, {"liver": box(SHAPE, **LIVER)}))]
    steps = FinetuneInputs(examples, tmp_path, PaintedSlices(), structureLabels(examples)).steps()
    next(steps)
    volume.SetOrigin(5.0, 5.0, 5.0)
    with pytest.raises(ValueError, match="CT was moved or exchanged"):
        list(steps)


def refusal(*examples) -> str:
    from SAMFineTunePanel.examples.example_slices import PaintedSlices
    from SAMFineTunePanel.jobs.finetune_request import FinetuneRequest

    return FinetuneRequest(list(examples)).problem(PaintedSlices())


def test_overlapping_segments_are_refused_by_name(scene, tmp_path):
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(
        volume, {"liver": box(SHAPE, **LIVER), "vessel": box(SHAPE, (5, 6), (6, 8), (6, 9))}
    )
    with pytest.raises(ValueError, match="liver and vessel of Labels overlap in 6 voxels"):
        exported([example(volume, segmentation)], tmp_path)


def test_the_overlap_is_counted_in_the_whole_segment(scene, tmp_path, monkeypatch):
    from SAMFineTunePanel.scene import segment_voxels

    # One slice a piece, as large segments are read.
    monkeypatch.setattr(segment_voxels, "_SLAB_BYTES", 1)
    volume = add_volume(values(), placement())
    segmentation = add_segmentation(
        volume,
        {
            "liver": box(SHAPE, **LIVER),
            "spleen": box(SHAPE, (0, 3), (0, 8), (0, 8)),
            "vessel": box(SHAPE, (2, 6), (6, 8), (6, 9)),
        },
    )
    with pytest.raises(ValueError, match="liver and vessel of Labels overlap in 18 voxels"):
        exported([example(volume, segmentation)], tmp_path)


def test_geometry_that_cannot_be_used_is_refused_in_words(scene):
    import slicer
    import vtk

    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": box(SHAPE, **LIVER)})
    shear = np.eye(4)
    shear[0, 1] = 0.3
    transform = add_transform(shear, volume)
    assert "sheared" in refusal(example(volume, segmentation))
    volume.SetAndObserveTransformNodeID(None)
    assert refusal(example(volume, segmentation)) == ""

    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    spline = vtk.vtkThinPlateSplineTransform()
    warp.SetAndObserveTransformToParent(spline)
    for node in (volume, segmentation):
        node.SetAndObserveTransformNodeID(warp.GetID())
        assert f"{node.GetName()} lies under a transform that is not linear" in refusal(
            example(volume, segmentation)
        )
        node.SetAndObserveTransformNodeID(None)
    assert transform


def test_volumes_that_cannot_be_used_are_refused_in_words(scene):
    import slicer

    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": box(SHAPE, **LIVER)})
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Void")
    flow = slicer.util.addVolumeFromArray(
        np.zeros((*SHAPE, 2), np.float32), nodeClassName="vtkMRMLVectorVolumeNode"
    )
    assert "Void has no voxels" in refusal(example(empty, segmentation))
    assert "2 values in each voxel" in refusal(example(flow, segmentation))
    slicer.mrmlScene.RemoveNode(empty)
    assert "Add an example" in refusal()


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_stay_where_they_are_in_the_world(scene, channels, tmp_path):
    import slicer

    colours = np.random.default_rng(0).integers(0, 256, (*SHAPE, channels)).astype(np.uint8)
    colours[..., 3:] = 255
    volume = slicer.util.addVolumeFromArray(colours, nodeClassName="vtkMRMLVectorVolumeNode")
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(TURN))
    mask = box(SHAPE, **LIVER)
    segmentation = add_segmentation(volume, {"liver": mask})
    [(_entry, image, labels)] = exported([example(volume, segmentation)], tmp_path)
    assert image.is_colour and np.array_equal(image.array, colours[..., :3])
    assert np.allclose(file_points(labels, 1), world_points(mask, TURN), atol=2e-3)
    grey = type(image)(image.array[..., 0], image.geometry)
    everywhere = world_points(np.ones(SHAPE, bool), TURN)
    assert np.allclose(file_points(image_as_labels(grey), 1), everywhere, atol=2e-3)


def test_a_segmentation_of_surfaces_is_not_written_into(scene):
    from types import SimpleNamespace

    import slicer
    from SAMFineTunePanel.jobs.apply_request import ApplyRequest

    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": box(SHAPE, **LIVER)})
    model = SimpleNamespace(name="none", card=SimpleNamespace(labels=[], channels=[]))
    assert ApplyRequest(model, [volume], segmentation).problem([]) == ""
    closed = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetSegmentation().SetSourceRepresentationName(closed)
    assert "not made of voxels" in ApplyRequest(model, [volume], segmentation).problem([])
