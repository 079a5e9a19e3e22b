"""Scene to files and back: every voxel where it was in the world, or a refusal in words."""

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
    rotation,
    segment_points,
    sorted_points,
    world_points,
)

pytestmark = pytest.mark.usefixtures("module", "scene")

SHAPE = (10, 16, 20)
LIVER = {"k": (3, 7), "j": (5, 12), "i": (4, 15)}
FLIP = np.diag([-1.0, 1.0, 1.0, 1.0])
GEOMETRIES = {
    "plain": placement(),
    "anisotropic": placement((0.7, 0.9, 5.0), origin=(12.0, -30.0, 40.0)),
    "oblique": placement((1.5, 1.0, 3.0), (1, 2, 3), 25, (5.0, 6.0, 7.0)),
    "left-handed": FLIP @ placement((1.0, 2.0, 3.0), (0, 1, 1), 15),
    "sagittal": placement((1.0, 1.0, 4.0), (1, 1, 1), 120),
}
TURN = rotation((0.3, 1, 0.2), 40)
TURN[:3, 3] = [100.0, -5.0, 3.0]


@pytest.fixture(params=GEOMETRIES)
def ijk_to_ras(request, scene):
    return GEOMETRIES[request.param]


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 1000, SHAPE).astype(np.int16)


def exported(examples, folder):
    """The written volumes and labelmaps as the worker reads them."""
    from SAMFineTunePanel.examples.example_export import FinetuneInputs, structureLabels
    from SAMFineTunePanel.examples.example_slices import PaintedSlices

    from SAMFineTuneLib.volumes import read_labelmap, read_volume

    inputs = FinetuneInputs(examples, folder, PaintedSlices(), structureLabels(examples))
    for _ in inputs.steps():
        pass
    return [
        (entry, read_volume(entry["volume"]), read_labelmap(entry["segmentation"], empty_ok=True))
        for entry in inputs.written
    ]


def example(volume, segmentation, **fields):
    from SAMFineTunePanel.parameter_node import Example

    return Example(volume=volume, segmentation=segmentation, **fields)


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
    colours = slicer.util.addVolumeFromArray(
        np.zeros((*SHAPE, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode"
    )
    assert "Void has no voxels" in refusal(example(empty, segmentation))
    assert "several values" in refusal(example(colours, segmentation))
    slicer.mrmlScene.RemoveNode(empty)
    assert "Add an example" in refusal()


def test_a_segmentation_of_surfaces_is_not_written_into(scene):
    from types import SimpleNamespace

    import slicer
    from SAMFineTunePanel.jobs.apply_request import ApplyRequest

    volume = add_volume(values(), placement())
    segmentation = add_segmentation(volume, {"liver": box(SHAPE, **LIVER)})
    model = SimpleNamespace(card=SimpleNamespace(labels=[]))
    assert ApplyRequest(model, [volume], segmentation).problem([]) == ""
    closed = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetSegmentation().SetSourceRepresentationName(closed)
    assert "not made of voxels" in ApplyRequest(model, [volume], segmentation).problem([])


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


@pytest.mark.parametrize("slab_bytes", [1, 500, 1 << 20])
def test_other_segments_keep_every_voxel_and_undo_is_one_step(
    scene, tmp_path, slab_bytes, monkeypatch
):
    from SAMFineTunePanel.jobs import result_import as scene_import
    from SAMFineTunePanel.segment_editing.segmentation_undo import SegmentationUndo

    # Large structures are written in several pieces.
    monkeypatch.setattr(scene_import, "_SLAB_BYTES", slab_bytes)
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
    with pytest.raises(ValueError):
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

    monkeypatch.setattr(scene_import, "_SLAB_BYTES", 1)
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

    monkeypatch.setattr(scene_import, "_SLAB_BYTES", 1)
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


# What is known of slices is kept


def on_slices(mask: np.ndarray, axis: int, *numbers: int) -> np.ndarray:
    keep = np.zeros(SHAPE[axis], bool)
    keep[list(numbers)] = True
    return mask & keep.reshape([-1 if each == axis else 1 for each in range(3)])


@pytest.mark.parametrize("orientation", ["axial", "coronal"])
def test_labelled_slices_stay_as_drawn_and_empty_ones_empty(orientation, tmp_path):
    from SAMFineTunePanel.examples.example_slices import PaintedSlices
    from SAMFineTunePanel.examples.known_slices import KnownSlices
    from SAMFineTunePanel.scene.structure_label import StructureLabel

    volume = add_volume(values(), GEOMETRIES["oblique"])
    axis = 0 if orientation == "axial" else 1
    liver = on_slices(box(SHAPE, (1, 9), (1, 12), (2, 12)), axis, 2, 5)
    spleen = on_slices(box(SHAPE, (1, 9), (1, 12), (14, 18)), axis, 5, 6)
    segmentation = add_segmentation(volume, {"liver": liver, "spleen": spleen})
    known = example(
        volume,
        segmentation,
        orientation=orientation,
        empty=[3],
        complete=[5],
        unfinished=[6],
        first=2,
    )
    elsewhere = example(add_volume(values(), placement(), "other"), segmentation, empty=[4])
    predicted = np.zeros(SHAPE, np.uint8)
    predicted[:, :, :8], predicted[:, :, 8:] = 3, 4
    labels = [
        StructureLabel(number, name, (1, 0, 0), "")
        for name, number in (("liver", 3), ("spleen", 4))
    ]
    kept = predicted.copy()
    for _ in KnownSlices([known, elsewhere], volume, PaintedSlices()).keepIn(kept, labels):
        pass
    plane = [np.moveaxis(each, axis, 0) for each in (kept, predicted, liver, spleen)]
    for number in (0, 1, 3):
        assert not plane[0][number].any()
    for number in (4, 6, 7):
        assert np.array_equal(plane[0][number], plane[1][number])
    assert np.array_equal(plane[0][5], np.where(plane[2][5], 3, 0) + np.where(plane[3][5], 4, 0))
    # On a slice that shows only the liver, all that is known of the spleen is where it is not.
    expected = np.where(plane[1][2] == 4, 4, 0)
    expected[plane[2][2]] = 3
    assert np.array_equal(plane[0][2], expected)


# What is drawn goes to the worker, too


def apply_job(volumes, examples, keep_known=True, meanwhile=lambda: None, **numbers):
    """The job.json that an apply writes, and the drawn labelmaps as the worker reads them."""
    from types import SimpleNamespace

    from SAMFineTunePanel.examples.example_slices import PaintedSlices
    from SAMFineTunePanel.jobs.apply_request import ApplyRequest
    from SAMFineTunePanel.segment_editing.segmentation_undo import SegmentationUndo

    from SAMFineTuneLib.jobs.schema import read_job
    from SAMFineTuneLib.models.model_file import LabelCard
    from SAMFineTuneLib.volumes import read_labelmap

    labels = [LabelCard(value=number, name=name) for name, number in numbers.items()]
    model = SimpleNamespace(name="organs", path="organs", card=SimpleNamespace(labels=labels))
    request = ApplyRequest(model, volumes, keepKnown=keep_known)
    job = request.job(SegmentationUndo(), examples, PaintedSlices(), lambda *_: None)
    # No worker is needed to see what it would be given.
    for _ in job._prepare:
        meanwhile()
    written = read_job(job.folder)
    labelmaps = [read_labelmap(each.segmentation) for each in written.drawn]
    job.cancel()
    assert not job.folder.exists()
    return written, labelmaps


@pytest.mark.parametrize("orientation", ["axial", "coronal"])
def test_an_apply_is_given_the_slices_that_are_drawn(orientation):
    volume = add_volume(values(), GEOMETRIES["oblique"])
    other = add_volume(values(1), placement(), "other")
    axis = 0 if orientation == "axial" else 1
    liver = on_slices(box(SHAPE, (1, 9), (1, 12), (2, 12)), axis, 2, 5)
    spleen = on_slices(box(SHAPE, (1, 9), (1, 12), (14, 18)), axis, 5, 6)
    unknown = on_slices(box(SHAPE, (1, 9), (1, 12), (0, 1)), axis, 2)
    segmentation = add_segmentation(
        volume, {"liver": liver, "bone": unknown, " spleen ": spleen, "rib": np.zeros(SHAPE)}
    )
    known = example(
        volume,
        segmentation,
        orientation=orientation,
        complete=[5],
        empty=[3],
        unfinished=[6],
        first=1,
    )
    job, [labelmap] = apply_job([other, volume], [known], rib=1, spleen=300, liver=4)
    [drawn] = job.drawn
    assert drawn.volume == job.volumes[1] and drawn.volume.name == "volume1.nrrd"
    assert drawn.axis == orientation and sorted(drawn.labels) == [4, 300]
    assert (drawn.complete, drawn.unfinished, drawn.known_empty) == ([5], [6], [3])
    assert drawn.extent == (1, SHAPE[axis] - 1) and drawn.empty == "none"
    assert np.array_equal(labelmap.array, np.where(liver, 4, np.where(spleen, 300, 0)))
    assert labelmap.names == {4: "liver", 300: "spleen"}


def test_an_apply_is_given_no_more_than_is_drawn_in_its_volumes_and_to_be_kept():
    volume = add_volume(values(), placement())
    other = add_volume(values(1), placement(), "other")
    liver = on_slices(box(SHAPE, **LIVER), 0, 3, 6)
    known = example(volume, add_segmentation(volume, {"liver": liver}))
    doubtful = example(volume, known.segmentation, empty=[3])
    for volumes, examples, keep, numbers in (
        ([volume], [known], False, {"liver": 1}),
        ([other], [known], True, {"liver": 1}),
        ([volume], [known], True, {"Liver": 1}),
        ([volume], [doubtful], True, {"liver": 1}),
    ):
        job, labelmaps = apply_job(volumes, examples, keep, **numbers)
        assert job.drawn == labelmaps == [] and len(job.volumes) == 1


def test_segments_that_overlap_come_in_files_of_their_own():
    volume = add_volume(values(), placement())
    masks = {
        "liver": on_slices(box(SHAPE, **LIVER), 0, 3, 6),
        "tumour": on_slices(box(SHAPE, (3, 7), (6, 8), (6, 9)), 0, 3, 6),
        "spleen": on_slices(box(SHAPE, (3, 7), (0, 3), (0, 3)), 0, 3, 6),
    }
    segmentation = add_segmentation(volume, masks)
    numbers = {"liver": 1, "tumour": 2, "spleen": 3}
    job, labelmaps = apply_job([volume], [example(volume, segmentation)], **numbers)
    assert [each.labels for each in job.drawn] == [[1, 3], [2]]
    for labelmap, names in zip(labelmaps, (["liver", "spleen"], ["tumour"]), strict=True):
        assert labelmap.labels == [numbers[name] for name in names]
        for name in names:
            assert np.array_equal(labelmap.array == numbers[name], masks[name])


def test_marks_that_contradict_each_other_do_not_stop_an_apply():
    volume = add_volume(values(), placement())
    liver = on_slices(box(SHAPE, **LIVER), 0, 3, 4, 6)
    known = example(
        volume,
        add_segmentation(volume, {"liver": liver}),
        complete=[1, 3, 3],
        unfinished=[4],
        empty=[1, 4, 8],
    )
    job, _ = apply_job([volume], [known], liver=1)
    [drawn] = job.drawn
    assert (drawn.complete, drawn.unfinished, drawn.known_empty) == ([1, 3], [4], [8])


@pytest.mark.parametrize("event", ["moved", "painted", "removed"])
def test_what_changes_while_an_apply_is_prepared_is_left_out(event):
    import slicer

    volume = add_volume(values(), placement())
    liver = on_slices(box(SHAPE, **LIVER), 0, 3, 6)
    segmentation = add_segmentation(volume, {"liver": liver, "spleen": liver})
    segment_id = segmentation.GetSegmentation().GetNthSegmentID(1)
    begun = []

    def meanwhile() -> None:
        begun.append(event)
        # The second piece: the image is written, the liver is read, the spleen is not.
        if len(begun) != 2:
            return
        if event == "moved":
            volume.SetOrigin(1.0, 0.0, 0.0)
        elif event == "painted":
            more = (liver | on_slices(box(SHAPE, **LIVER), 0, 5)).astype(np.uint8)
            slicer.util.updateSegmentBinaryLabelmapFromArray(more, segmentation, segment_id, volume)
        else:
            segmentation.GetSegmentation().RemoveSegment(segment_id)

    job, labelmaps = apply_job(
        [volume], [example(volume, segmentation)], meanwhile=meanwhile, liver=1, spleen=2
    )
    assert job.drawn == labelmaps == [] and len(begun) >= 2


def test_a_structure_that_one_example_lacks_is_learnt_as_absent_where_that_is_said(scene, tmp_path):
    """On slices that are marked as done or empty; an example without a structure may be healthy."""
    nothing = np.zeros(SHAPE)
    volumes = [add_volume(values(seed), placement((1, 1, 3))) for seed in range(4)]
    liver, tumour = box(SHAPE, **LIVER), box(SHAPE, (8, 9), (6, 9), (6, 9))
    shown, lacking, silent, healthy = (
        add_segmentation(volume, segments)
        for volume, segments in zip(
            volumes,
            [
                {"liver": liver, "tumour": tumour},
                {"liver": liver, "tumour": nothing, "cyst": nothing},
                {"liver": liver, "tumour": nothing},
                {"tumour": nothing},
            ],
            strict=True,
        )
    )
    written = exported(
        [
            example(volumes[0], shown),
            example(volumes[1], lacking, complete=[4]),
            example(volumes[2], silent),
            example(volumes[3], healthy, empty=[2, 5]),
        ],
        tmp_path,
    )
    assert [entry["labels"] for entry, _, _ in written] == [[1, 2], [1, 2], [1], [2]]

    from SAMFineTuneLib.jobs.schema import FinetuneJob, make_job
    from SAMFineTuneLib.training.examples import load_examples

    job = make_job(
        FinetuneJob,
        {
            "output": tmp_path / "model.safetensors",
            "examples": [entry for entry, _, _ in written],
            "label_names": {1: "liver", 2: "tumour"},
        },
    )
    learnt = load_examples(job.examples, job.label_names)
    assert [label.name for label in learnt.labels] == ["liver", "tumour"]
    tumour_known = {
        (each.volume, each.number)
        for each in learnt.slices
        if each.known[2] and not (each.target == 2).any()
    }
    assert {(1, 4), (3, 2), (3, 5)} <= tumour_known
    assert not any(volume == 2 for volume, _ in tumour_known)
