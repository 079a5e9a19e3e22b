"""Which slices of an example count, and the slice in view."""

from __future__ import annotations

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

SHAPE = (12, 16, 20)


def painted(*numbers: int, axis: int = 0) -> np.ndarray:
    mask = (
        box(SHAPE, (0, 12), (4, 12), (4, 15))
        if axis == 0
        else box(SHAPE, (2, 10), (0, 16), (4, 15))
    )
    keep = np.zeros(SHAPE[axis], bool)
    keep[list(numbers)] = True
    return mask & keep.reshape([-1 if each == axis else 1 for each in range(3)])


def add_example(logic, spacing=(1.0, 1.0, 3.0), **segments):
    volume = add_volume(np.zeros(SHAPE, np.int16), placement(spacing))
    segmentation = add_segmentation(volume, segments)
    logic.addExample(volume, segmentation)
    return logic.getParameterNode().examples[0]


def current(logic):
    """The example as the scene has it now; what was read before stays as it was."""
    return logic.getParameterNode().examples[0]


def slices_now(logic):
    return logic.exampleSlices(current(logic))


def test_labelled_slices_are_found_for_each_segment(logic):
    example = add_example(
        logic, liver=painted(2, 5, 8), spleen=painted(5) & False, kidney=painted(9)
    )
    slices = logic.exampleSlices(example)
    assert slices.orientation == "axial" and slices.count == 12
    assert slices.bySegment == {"liver": [2, 5, 8], "spleen": [], "kidney": [9]}
    assert slices.labelled == [2, 5, 8, 9] and slices.problem == ""
    assert slices.warning == "spleen: nothing is painted; it will not be learnt from here."


def test_painting_is_noticed(logic):
    import slicer

    example = add_example(logic, liver=painted(2))
    assert slices_now(logic).labelled == [2]
    segment_id = example.segmentation.GetSegmentation().GetNthSegmentID(0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        painted(2, 7).astype(np.uint8), example.segmentation, segment_id, example.volume
    )
    assert slices_now(logic).labelled == [2, 7]
    # In place, as the Segment Editor's brush does.
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(example.segmentation, segment_id)
    array[-1] = array.max()
    example.segmentation.GetSegmentation().GetSegment(segment_id).GetRepresentation(
        "Binary labelmap"
    ).Modified()
    assert 11 in slices_now(logic).found


def test_the_orientation_is_that_in_which_slices_were_drawn(logic):
    add_example(logic, spacing=(1.0, 1.0, 1.0), liver=painted(3, 9, axis=1))
    assert slices_now(logic).orientation == "coronal"
    current(logic).orientation = "axial"
    assert slices_now(logic).orientation == "axial"
    assert slices_now(logic).found == list(range(2, 10))


def test_orientations_are_those_of_the_library(logic):
    """The same name for the same voxel axis, however a volume lies."""
    from SAMFineTunePanel.scene.voxel_grid import VoxelGrid

    from SAMFineTuneLib.geometry.axes import array_axis
    from SAMFineTuneLib.volumes import Geometry

    random = np.random.default_rng(0)
    for _ in range(200):
        turn = rotation(random.normal(size=3), random.uniform(0, 360))
        turn = turn @ np.diag([*random.choice([-1, 1], 3), 1])
        grid = VoxelGrid((5, 6, 7), turn)
        direction = np.diag([-1.0, -1.0, 1.0]) @ turn[:3, :3]
        geometry = Geometry((5, 6, 7), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(direction.ravel()))
        for name in ("axial", "coronal", "sagittal"):
            assert grid.voxelAxis(name) == 2 - array_axis(geometry, name)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 3.0), (1.0, 1.0, 1.0), (2.5, 1.0, 1.0)])
@pytest.mark.parametrize(("axis", "numbers"), [(0, [2, 5, 9]), (1, [2, 8, 15]), (2, [5, 13, 17])])
def test_the_panel_and_the_shell_find_the_same_orientation(logic, spacing, axis, numbers):
    """Labels on single slices along an axis, and whole structures in two pieces."""
    from SAMFineTuneLib.geometry.grid import Geometry
    from SAMFineTuneLib.slices.stack import suggest_axis
    from SAMFineTuneLib.volumes import Labelmap

    geometry = Geometry(SHAPE[::-1], spacing, (0.0, 0.0, 0.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    keep = np.zeros(SHAPE[axis], bool)
    keep[numbers] = True
    single = np.zeros(SHAPE, bool)
    single[1:11, 1:15, 2:19] = True
    single &= keep.reshape([-1 if each == axis else 1 for each in range(3)])
    pieces = np.zeros(SHAPE, bool)
    pieces[1:4, 2:9, 3:9] = pieces[6:11, 3:14, 4:15] = True
    for number, mask in enumerate((single, pieces)):
        volume = add_volume(np.zeros(SHAPE, np.int16), placement(spacing))
        logic.addExample(volume, add_segmentation(volume, {"liver": mask}))
        found = logic.exampleSlices(logic.getParameterNode().examples[number]).orientation
        assert found == suggest_axis(Labelmap(mask.astype(np.uint8), geometry))


def test_marks_are_kept_and_take_each_other_back(logic):
    add_example(logic, liver=painted(2, 5, 8))
    logic.markComplete(0, 5, False)
    assert slices_now(logic).labelled == [2, 8] and list(current(logic).unfinished) == [5]
    logic.markComplete(0, 5)
    assert list(current(logic).complete) == [5] and list(current(logic).unfinished) == []
    logic.markEmpty(0, 0)
    assert slices_now(logic).empty == (0,)
    logic.markComplete(0, 0)
    assert list(current(logic).empty) == [] and 0 in slices_now(logic).labelled
    logic.markEmpty(0, 0)
    assert 0 not in list(current(logic).complete)
    with pytest.raises(ValueError, match="painted on slice 8"):
        logic.markEmpty(0, 8)


def test_contradictions_are_told_in_words(logic):
    add_example(logic, liver=painted(2, 5, 8))
    logic.setFirst(0, 4)
    assert "Slice 2 is labelled, but lies beyond" in slices_now(logic).problem
    logic.setFirst(0, 2)
    logic.setLast(0, 1)
    assert "begin behind its end" in slices_now(logic).problem
    logic.setLast(0, -1)
    assert slices_now(logic).extent == (2, 11) and logic.problemWithFineTune() == ""
    current(logic).empty = [5]
    assert "Slice 5 is marked as empty" in logic.problemWithFineTune()
    current(logic).empty = [40]
    assert "this orientation does not have" in logic.problemWithFineTune()


def test_a_healthy_volume_is_an_example_beside_one_that_shows_the_structure(logic):
    add_example(logic, liver=painted(2) & False)
    logic.markEmpty(0, 4)
    assert slices_now(logic).problem == "" and "learnt as empty" in slices_now(logic).warning
    assert "Nothing is painted in any example" in logic.problemWithFineTune()
    add_example(logic, liver=painted(2, 5))
    assert logic.problemWithFineTune() == ""


def test_a_segment_without_a_voxel_is_known_to_be_absent_where_that_is_said(logic):
    add_example(logic, liver=painted(2, 5), spleen=painted(2) & False)
    assert "will not be learnt from here" in slices_now(logic).warning
    logic.markComplete(0, 5)
    assert "absent where slices are done or empty" in slices_now(logic).warning


def test_examples_that_cannot_be_used_say_why(logic):
    import slicer

    assert "Add an example" in logic.problemWithFineTune()
    example = add_example(logic, liver=painted(2) & False)
    assert "Nothing is painted yet" in logic.problemWithFineTune()
    segmentation = example.segmentation.GetSegmentation()
    segmentation.AddEmptySegment("", "liver ")
    assert "Two segments of Labels are called liver" in logic.problemWithFineTune()
    segmentation.RemoveAllSegments()
    assert "no segments yet" in logic.problemWithFineTune()
    slicer.mrmlScene.RemoveNode(example.segmentation)
    assert "segmentation has been removed" in logic.problemWithFineTune()
    slicer.mrmlScene.RemoveNode(example.volume)
    assert "volume has been removed" in logic.problemWithFineTune()
    logic.removeExample(0)
    assert len(logic.getParameterNode().examples) == 0


def test_the_same_pair_is_an_example_once(logic):
    example = add_example(logic, liver=painted(2))
    with pytest.raises(ValueError, match="CT with Labels is an example already"):
        logic.addExample(example.volume, example.segmentation)


def test_the_next_slice_is_far_from_those_labelled(logic):
    add_example(logic, liver=painted(2, 4, 10))
    assert logic.suggestSlice(0) == 7
    logic.markEmpty(0, 7)
    assert logic.suggestSlice(0) in (5, 6, 8, 9, 3)


def test_uncertainty_moves_the_suggestion(logic):
    example = add_example(logic, liver=painted(0, 11))
    by_slice = [0.0] * 12
    by_slice[4] = 0.8
    logic._noteUncertainty(example.volume, "axial", by_slice)
    assert logic.suggestSlice(0) == 4
    logic._noteUncertainty(example.volume, "coronal", by_slice)
    assert logic.suggestSlice(0) in (5, 6)


VIEW_PLACEMENTS = {
    "plain": placement((1.0, 1.0, 3.0)),
    "oblique": placement((1.5, 1.0, 3.0), (1, 2, 3), 25, (5.0, 6.0, 7.0)),
    "upside down": np.diag([1.0, 1.0, -1.0, 1.0]) @ placement((1.0, 1.0, 3.0)),
}


@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("under_transform", [False, True])
@pytest.mark.parametrize("place", VIEW_PLACEMENTS)
def test_a_view_shows_the_slice_asked_for(
    layout_manager, logic, place, under_transform, orientation
):
    import slicer
    from SAMFineTunePanel.scene.voxel_grid import gridOf

    volume = add_volume(np.zeros(SHAPE, np.int16), VIEW_PLACEMENTS[place])
    segmentation = add_segmentation(volume, {"liver": painted(2)})
    if under_transform:
        add_transform(rotation((0, 1, 1), 33), volume, segmentation)
    example = logic.addExample(volume, segmentation, orientation=orientation)
    grid = gridOf(volume)
    axis = grid.voxelAxis(orientation)
    for number in (0, 3, grid.size[axis] - 1):
        logic.showSlice(example, number)
        seen = logic.sliceInView(example)
        assert (seen.number, seen.problem) == (number, "")
        # By the view itself: the centre of its plane lies in that slice of the volume.
        node = slicer.app.layoutManager().sliceWidget(seen.viewName).mrmlSliceNode()
        centre = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:, 3]
        assert (np.linalg.inv(grid.ijkToRas) @ centre)[axis] == pytest.approx(number, abs=0.01)
    with pytest.raises(ValueError, match="has no"):
        logic.showSlice(example, grid.size[axis])


def test_views_that_show_no_slice_of_the_volume_say_so(layout_manager, logic):
    import slicer

    example = add_example(logic, liver=painted(2))
    for name in layout_manager.sliceViewNames():
        node = layout_manager.sliceWidget(name).mrmlSliceNode()
        turned = slicer.util.vtkMatrixFromArray(rotation((1, 1, 0.3), 30))
        node.GetSliceToRAS().DeepCopy(turned)
        node.UpdateMatrices()
    seen = logic.sliceInView(example)
    assert seen.number is None and "No view shows axial slices of CT" in seen.problem
    logic.showSlice(example, 2)
    assert logic.sliceInView(example).number == 2
    node = layout_manager.sliceWidget("Red").mrmlSliceNode()
    node.SetSliceOffset(500.0)
    assert "View Red is beyond volume CT" in logic.sliceInView(example).problem
