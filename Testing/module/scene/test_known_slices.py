"""What is known of slices is kept by an apply, and goes to the worker."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.scene_builders import add_segmentation, add_volume, box, placement
from Testing.support.scene_geometries import GEOMETRIES, LIVER, SHAPE, example, exported, values

pytestmark = pytest.mark.usefixtures("module", "scene")


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
    card = SimpleNamespace(labels=labels, channels=[])
    model = SimpleNamespace(name="organs", path="organs", card=card)
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
        assert job.drawn == labelmaps == [] and len(job.volumes) == 1 and job.tidy


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

    from SAMFineTuneLib.examples.loading import load_examples
    from SAMFineTuneLib.jobs.schema import FinetuneJob, make_job

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
