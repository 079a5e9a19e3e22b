"""DICOM segmentation objects (SEG), read and written: right voxels at right places."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import geometry_of, head
from Testing.support.tuned_starter import write_model

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from SAMFineTuneLib.errors import InputError  # noqa: E402
from SAMFineTuneLib.volumes import (  # noqa: E402
    Labelmap,
    labelmap_onto,
    read_labelmap,
    read_volume,
    write_labelmap,
    write_volume,
)
from SAMFineTuneLib.volumes.dicom_segmentation_writing import (  # noqa: E402
    rehearse,
    write_segmentation,
)
from SAMFineTuneLib.volumes.dicom_sources import source_headers  # noqa: E402
from SAMFineTuneLib.volumes.dicom_terms import entry_of, terms_of  # noqa: E402
from SAMFineTuneLib.volumes.image_grid import placed  # noqa: E402
from Testing.support.synthetic_dicom_objects import (  # noqa: E402
    AXIAL,
    CORONAL,
    FRAME_OF_REFERENCE,
    OBLIQUE,
    SAGITTAL,
    SERIES,
    STUDY,
    Segment,
    Stack,
    code,
    write_multi_frame,
    write_seg,
    write_series,
)

# Not a multiple of eight pixels, so that frames begin within a byte.
ROWS, COLUMNS = 7, 5
ORIENTATIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}

LIVER = "Category~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Codes~^^~^^"
LEFT_KIDNEY = (
    "Category~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^7771000^Left~Codes"
    "~SCT^818983003^Abdomen~SCT^24028007^Right"
)


def pixels(*marked: tuple[int, int]) -> np.ndarray:
    """A frame with some pixels (row, column) marked."""
    frame = np.zeros((ROWS, COLUMNS), np.uint8)
    for row, column in marked:
        frame[row, column] = 1
    return frame


def marked(planes: dict[float, np.ndarray]) -> np.ndarray:
    """The voxels (k, row, column) that planes mark."""
    return np.array([(k, *place) for k, frame in planes.items() for place in np.argwhere(frame)])


def places_of(labelmap: Labelmap, label: int) -> np.ndarray:
    """LPS of the voxels of a label, by SimpleITK."""
    image = placed(sitk.GetImageFromArray(labelmap.array), labelmap.geometry)
    found = [
        image.TransformIndexToPhysicalPoint([int(i), int(j), int(k)])
        for k, j, i in np.argwhere(labelmap.array == label)
    ]
    return np.array(found).reshape(-1, 3)


def same_places(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two lists hold the same points, to a hundredth of a mm."""
    if len(one) != len(other):
        return False
    distances = np.linalg.norm(one[:, None] - other[None], axis=-1)
    return bool((distances.min(axis=1) < 0.01).all() and (distances.min(axis=0) < 0.01).all())


def refused(function: Any, *arguments: Any, **more: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        function(*arguments, **more)
    assert "\n" not in str(caught.value)
    return caught.value


LIVER_PLANES = {5.0: pixels((1, 1), (1, 2)), 2.0: pixels((1, 1), (6, 4)), 3.0: pixels((0, 4))}
SPLEEN_PLANES = {3.0: pixels((3, 3), (5, 0))}


def two_segments(path: Path, stack: Stack, **more: Any) -> None:
    liver = Segment(
        "Liver",
        LIVER_PLANES,
        (41661, 41167, 40792),
        code("123037004", "SCT", "Anatomical Structure"),
        code("10200004", "SCT", "Liver"),
        code("818983003", "SCT", "Abdomen"),
    )
    write_seg(path, stack, {1: liver, 2: Segment("Spleen", SPLEEN_PLANES)}, **more)


class TestReading:
    @pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
    @pytest.mark.parametrize("between", [4.0, None])
    def test_frames_in_any_order_lie_where_they_say(self, tmp_path, axes, between):
        stack = Stack(axes)
        two_segments(tmp_path / "s.dcm", stack, between=between, order=[3, 0, 2, 1])
        found = read_labelmap(tmp_path / "s.dcm")
        assert found.labels == [1, 2]
        assert same_places(places_of(found, 1), stack.places(marked(LIVER_PLANES)))
        assert same_places(places_of(found, 2), stack.places(marked(SPLEEN_PLANES)))
        # Planes 2 to 5, of which 4 is stored by nobody.
        assert found.array.shape == (4, ROWS, COLUMNS)
        assert found.geometry.spacing == pytest.approx((1.25, 1.5, 4.0))
        assert found.remarks == ()

    def test_names_colours_terms(self, tmp_path):
        two_segments(tmp_path / "s.dcm", Stack())
        found = read_labelmap(tmp_path / "s.dcm")
        assert found.names == {1: "Liver", 2: "Spleen"}
        # What Slicer writes into an NRRD of the segment whose Lab colour this is.
        assert found.colours[1] == pytest.approx((221 / 255, 130 / 255, 101 / 255), abs=0.003)
        assert 2 not in found.colours
        assert found.terminologies == {
            1: "Segmentation category and type - DICOM master list"
            "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^"
            "~Anatomic codes - DICOM master list~SCT^818983003^Abdomen~^^"
        }
        assert found.frame_of_reference == FRAME_OF_REFERENCE

    def test_planes_left_out_do_not_make_thick_slices(self, tmp_path):
        stack = Stack()
        sparse = {0.0: pixels((1, 1)), 6.0: pixels((2, 2)), 12.0: pixels((3, 3))}
        write_seg(tmp_path / "s.dcm", stack, {1: Segment("a", sparse)})
        volume = geometry_of((15, ROWS, COLUMNS), (1.25, 1.5, 4.0), stack.origin)
        found = read_labelmap(tmp_path / "s.dcm", over=volume)
        assert found.geometry.spacing[2] == pytest.approx(4.0)
        onto = labelmap_onto(found, volume)
        assert np.flatnonzero(onto.array.any(axis=(1, 2))).tolist() == [0, 6, 12]
        assert same_places(places_of(onto, 1), stack.places(marked(sparse)))

    def test_gaps_that_share_no_smallest_one(self, tmp_path):
        stack = Stack(step=2.0)
        sparse = {0.0: pixels((1, 1)), 2.0: pixels((2, 2)), 5.0: pixels((3, 3))}
        write_seg(tmp_path / "s.dcm", stack, {1: Segment("a", sparse)})
        found = read_labelmap(tmp_path / "s.dcm")
        assert found.geometry.spacing[2] == pytest.approx(2.0)
        assert same_places(places_of(found, 1), stack.places(marked(sparse)))

    def test_a_wrong_spacing_is_not_believed(self, tmp_path):
        stack = Stack()
        two_segments(tmp_path / "s.dcm", stack, between=5.5)
        found = read_labelmap(tmp_path / "s.dcm")
        assert same_places(places_of(found, 1), stack.places(marked(LIVER_PLANES)))
        assert any("5.5" in remark for remark in found.remarks)

    @pytest.mark.parametrize("told", [5.0, None])
    def test_a_single_plane(self, tmp_path, told):
        write_seg(tmp_path / "s.dcm", Stack(), {3: Segment("a", SPLEEN_PLANES)}, between=told)
        found = read_labelmap(tmp_path / "s.dcm")
        assert found.labels == [3]
        assert found.geometry.spacing[2] == (told or 1.0)
        assert bool(found.remarks) == (told is None)
        assert same_places(places_of(found, 3), Stack().places(marked(SPLEEN_PLANES)))

    def test_frames_shifted_by_whole_pixels(self, tmp_path):
        stack = Stack(OBLIQUE)
        other = replace(stack, origin=tuple(stack.places(np.array([[0, 2, -3]]))[0]))
        planes = {2.0: pixels((0, 0), (6, 4)), 3.0: pixels((3, 3))}

        def shift(dataset: Any) -> None:
            frame = dataset.PerFrameFunctionalGroupsSequence[1]
            position = [f"{value:.10g}" for value in other.position(3)]
            frame.PlanePositionSequence[0].ImagePositionPatient = position

        write_seg(tmp_path / "s.dcm", stack, {1: Segment("a", planes)}, between=4, change=shift)
        found = read_labelmap(tmp_path / "s.dcm")
        expected = np.concatenate(
            [
                stack.places(marked({2.0: planes[2.0]})),
                other.places(marked({3.0: planes[3.0]})),
            ]
        )
        assert same_places(places_of(found, 1), expected)
        assert found.remarks == ()

    def test_fractional_counts_above_a_half(self, tmp_path):
        fractions = np.zeros((ROWS, COLUMNS), np.uint8)
        fractions[0, :4] = [49, 50, 51, 100]
        segment = Segment("a", {0.0: fractions})
        write_seg(tmp_path / "s.dcm", Stack(), {1: segment}, kind="FRACTIONAL", full=100, between=4)
        found = read_labelmap(tmp_path / "s.dcm")
        assert np.argwhere(found.array).tolist() == [[0, 0, 2], [0, 0, 3]]
        assert "fractional" in found.remarks[0]

    def test_label_map(self, tmp_path):
        planes = {0.0: 4 * pixels((1, 1)) + 9 * pixels((2, 2)), 1.0: 9 * pixels((3, 3))}
        segments = {4: Segment("four", planes), 9: Segment("nine")}
        write_seg(tmp_path / "s.dcm", Stack(), segments, kind="LABELMAP", order=[1, 0])
        found = read_labelmap(tmp_path / "s.dcm")
        assert found.names == {4: "four", 9: "nine"}
        assert same_places(places_of(found, 9), Stack().places(np.array([[0, 2, 2], [1, 3, 3]])))
        assert read_labelmap(tmp_path / "s.dcm", wanted=[4]).labels == [4]

    def test_big_segments_that_overlap(self, tmp_path):
        big = {0.0: np.ones((ROWS, COLUMNS), np.uint8)}
        small = {0.0: pixels((1, 1), (2, 2), (3, 3))}
        dot = {0.0: pixels((2, 2))}
        segments = {1: Segment("Body", big), 2: Segment("Liver", small), 3: Segment("Cyst", dot)}
        path = tmp_path / "s.dcm"
        write_seg(path, Stack(), segments, between=4)
        error = refused(read_labelmap, path)
        assert error.code == "overlapping_segments"
        assert "'Body'" in str(error) and "'Liver'" in str(error) and " 3 voxels" in str(error)
        found = read_labelmap(path, on_top=["cyst", "2"])
        assert [np.count_nonzero(found.array == label) for label in (1, 2, 3)] == [32, 2, 1]
        assert "1 voxels of 'Liver' are covered by 'Cyst'" in found.remarks[0]
        assert np.count_nonzero(read_labelmap(path, wanted=[1]).array) == 35
        assert "no segment spleen" in read_labelmap(path, on_top=["3", "2", "spleen"]).remarks[0]

    def test_real_ones_are_what_their_nrrd_is(self, shared_data):
        folder = shared_data / "ct_3slice_dicom_seg"
        found = read_labelmap(folder / "liver.dcm")
        nrrd = sitk.ReadImage(str(folder / "liver_seg.nrrd"))
        image = placed(sitk.GetImageFromArray((found.array > 0).astype(np.uint8)), found.geometry)
        onto = sitk.Resample(image, nrrd, sitk.Transform(), sitk.sitkNearestNeighbor)
        there = sitk.GetArrayFromImage(nrrd) > 0
        assert (sitk.GetArrayFromImage(onto).astype(bool) == there).all() and there.any()
        error = refused(read_labelmap, folder / "partial_overlaps.dcm")
        assert "'GREEN'" in str(error) and "3017 voxels" in str(error)


class TestRefused:
    def change(self, path: Path, change: Any, **more: Any) -> InputError:
        two_segments(path, Stack(), change=change, **more)
        return refused(read_labelmap, path)

    def test_frames_turned_against_each_other(self, tmp_path):
        def turn(dataset: Any) -> None:
            orientation = pydicom.Dataset()
            orientation.ImageOrientationPatient = [0.8, 0.6, 0, -0.6, 0.8, 0]
            frame = dataset.PerFrameFunctionalGroupsSequence[2]
            frame.PlaneOrientationSequence = [orientation]

        error = self.change(tmp_path / "s.dcm", turn)
        assert "frame 3 is turned" in str(error)

    def test_uneven_planes(self, tmp_path):
        planes = {0.0: pixels((1, 1)), 1.0: pixels((1, 1)), 2.35: pixels((1, 1))}
        write_seg(tmp_path / "s.dcm", Stack(), {1: Segment("a", planes)}, between=4)
        assert "from 4.00 to 5.40 mm" in str(refused(read_labelmap, tmp_path / "s.dcm"))

    def test_a_microscope_slide(self, tmp_path):
        def tile(dataset: Any) -> None:
            dataset.DimensionOrganizationType = "TILED_FULL"

        assert "microscope" in str(self.change(tmp_path / "s.dcm", tile))

    def test_without_frames(self, tmp_path):
        write_seg(tmp_path / "s.dcm", Stack(), {1: Segment("a")})
        assert refused(read_labelmap, tmp_path / "s.dcm").code == "empty_segmentation"
        volume = geometry_of((3, 4, 5))
        assert refused(read_labelmap, tmp_path / "s.dcm", over=volume).code == "empty_segmentation"
        found = read_labelmap(tmp_path / "s.dcm", over=volume, empty_ok=True)
        assert found.geometry == volume and found.labels == [] and found.names == {1: "a"}

    @pytest.mark.parametrize(
        "field", ["SegmentationType", "PerFrameFunctionalGroupsSequence", "Rows", "PixelData"]
    )
    def test_fields_that_lack(self, tmp_path, field):
        error = self.change(tmp_path / "s.dcm", lambda dataset: delattr(dataset, field))
        assert error.code == "damaged_image"

    @pytest.mark.parametrize("field", ["PlanePositionSequence", "SegmentIdentificationSequence"])
    def test_frames_that_tell_too_little(self, tmp_path, field):
        def leave_out(dataset: Any) -> None:
            delattr(dataset.PerFrameFunctionalGroupsSequence[1], field)

        error = self.change(tmp_path / "s.dcm", leave_out)
        assert error.code == "damaged_image" and field in str(error)

    def test_positions_far_away(self, tmp_path):
        def fly(dataset: Any) -> None:
            frame = dataset.PerFrameFunctionalGroupsSequence[1]
            frame.PlanePositionSequence[0].ImagePositionPatient = ["0", "0", "1e12"]

        assert self.change(tmp_path / "s.dcm", fly).code in ("damaged_image", "uneven_slices")

    @pytest.mark.parametrize("left", [0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
    def test_files_cut_short(self, tmp_path, left):
        two_segments(tmp_path / "s.dcm", Stack())
        whole = (tmp_path / "s.dcm").read_bytes()
        (tmp_path / "s.dcm").write_bytes(whole[: int(left * len(whole))])
        assert refused(read_labelmap, tmp_path / "s.dcm").code in ("damaged_image", "not_an_image")

    def test_bytes_changed_by_chance(self, tmp_path):
        two_segments(tmp_path / "s.dcm", Stack())
        whole = (tmp_path / "s.dcm").read_bytes()
        random = np.random.default_rng(0)
        for _ in range(150):
            changed = bytearray(whole)
            for place in random.integers(132, len(whole), 3):
                changed[place] = random.integers(256)
            (tmp_path / "c.dcm").write_bytes(changed)
            try:
                read_labelmap(tmp_path / "c.dcm", empty_ok=True)
            except InputError:
                continue

    def test_two_in_one_folder(self, tmp_path):
        two_segments(tmp_path / "a.dcm", Stack())
        two_segments(tmp_path / "b.dcm", Stack())
        error = refused(read_labelmap, tmp_path)
        assert "a.dcm (SEG)" in str(error) and "b.dcm (SEG)" in str(error)

    def test_as_a_volume(self, tmp_path):
        two_segments(tmp_path / "s.dcm", Stack())
        assert "a segmentation (SEG), not an image" in str(refused(read_volume, tmp_path / "s.dcm"))

    @pytest.mark.parametrize("missing", ["pydicom", "highdicom.color"])
    def test_without_the_libraries(self, tmp_path, monkeypatch, missing):
        two_segments(tmp_path / "s.dcm", Stack())
        monkeypatch.setitem(sys.modules, missing, None)
        error = refused(read_labelmap, tmp_path / "s.dcm")
        assert error.code == "missing_package" and "pip install highdicom pydicom" in str(error)


def test_terms_go_there_and_back():
    for entry in (LIVER, LEFT_KIDNEY):
        terms = terms_of(entry)
        assert terms is not None
        assert entry_of(terms).split("~")[1:4] == entry.split("~")[1:4]
        assert entry_of(terms).split("~")[5:] == entry.split("~")[5:]
    assert terms_of("") is None
    assert terms_of("Category~^^~^^~^^~~^^~^^") is None


def series_and_labels(folder: Path, stack: Stack, count: int = 6) -> tuple[Any, Labelmap]:
    """A DICOM volume, read, and labels 5 and 52 drawn on it at known places."""
    random = np.random.default_rng(0)
    write_series(folder, random.integers(0, 900, (count, ROWS, COLUMNS)), stack)
    volume = read_volume(folder)
    array = np.zeros(volume.array.shape, np.uint8)
    array[1, 2, 3], array[4, 6, 4], array[3, 0, 0] = 5, 5, 52
    labelmap = Labelmap(
        array,
        volume.geometry,
        {5: "Leber (größer) 肝", 52: "kidney"},
        {5: (1.0, 0.0, 0.0), 52: (0.25, 0.5, 0.75)},
        terminologies={52: LEFT_KIDNEY},
    )
    return volume, labelmap


def segment_places(dataset: Any, number: int) -> np.ndarray:
    """LPS of the pixels of a segment, from the fields of the file alone."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    row_axis, column_axis = np.array(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, float
    ).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = []
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, described in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if described.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        position = np.array(described.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            along = column * between_columns * row_axis + row * between_rows * column_axis
            found.append(position + along)
    return np.array(found).reshape(-1, 3)


class TestWriting:
    @pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
    @pytest.mark.parametrize("multi_frame", [False, True], ids=["files", "frames"])
    def test_voxels_lie_where_they_were_found(self, tmp_path, axes, multi_frame):
        stack = Stack(axes)
        source = tmp_path / "series"
        volume, labelmap = series_and_labels(source, stack)
        if multi_frame:
            source = tmp_path / "frames.dcm"
            write_multi_frame(source, volume.array.astype(int), stack)
        sources = source_headers(source, volume.geometry)
        write_segmentation(tmp_path / "out.dcm", labelmap, [5, 52], sources)
        dataset = pydicom.dcmread(tmp_path / "out.dcm")
        assert same_places(segment_places(dataset, 1), places_of(labelmap, 5))
        assert same_places(segment_places(dataset, 2), places_of(labelmap, 52))
        # The volume's own places, by the fields of its files.
        assert same_places(
            segment_places(dataset, 2),
            stack.places(np.array([[3, 0, 0]])),
        )
        # Each frame names the image on which it lies.
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            image = frame.DerivationImageSequence[0].SourceImageSequence[0]
            position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            k = int(np.rint((position - stack.origin) @ stack.normal / stack.step))
            if multi_frame:
                assert image.ReferencedFrameNumber == k + 1
            else:
                named = {each.SOPInstanceUID: each for each in sources}
                image_position = named[image.ReferencedSOPInstanceUID].ImagePositionPatient
                assert np.allclose(np.array(image_position, float), position, atol=1e-3)

    def test_a_volume_whose_slices_run_the_other_way(self, tmp_path):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack(OBLIQUE))
        last = tuple(float(each) for each in volume.geometry.affine[:3] @ [0, 0, 5, 1])
        direction = np.array(volume.geometry.direction).reshape(3, 3) * [1, 1, -1]
        geometry = replace(volume.geometry, origin=last, direction=tuple(direction.ravel()))
        flipped = replace(labelmap, array=labelmap.array[::-1].copy(), geometry=geometry)
        sources = source_headers(tmp_path / "series", geometry)
        write_segmentation(tmp_path / "out.dcm", flipped, [5, 52], sources)
        dataset = pydicom.dcmread(tmp_path / "out.dcm")
        assert same_places(segment_places(dataset, 1), places_of(labelmap, 5))
        assert same_places(segment_places(dataset, 2), places_of(labelmap, 52))

    def test_two_series_on_one_grid(self, tmp_path):
        volume, _ = series_and_labels(tmp_path / "all" / "a", Stack())
        write_series(tmp_path / "all" / "b", volume.array.astype(int), Stack(), series="1.2.3")
        assert refused(source_headers, tmp_path / "all", volume.geometry).code == "no_source_series"
        chosen = source_headers(tmp_path / "all", volume.geometry, "1.2.3")
        assert {each.SeriesInstanceUID for each in chosen} == {"1.2.3"}

    def test_what_it_tells(self, tmp_path):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack())
        sources = source_headers(tmp_path / "series", volume.geometry)
        write_segmentation(tmp_path / "out.dcm", labelmap, [5, 9, 52], sources)
        dataset = pydicom.dcmread(tmp_path / "out.dcm")
        assert (dataset.Modality, dataset.SegmentationType) == ("SEG", "BINARY")
        assert (str(dataset.PatientName), dataset.PatientID) == ("Doe^Jane", "P1")
        assert dataset.StudyInstanceUID == STUDY and dataset.SeriesInstanceUID != SERIES
        assert dataset.FrameOfReferenceUID == FRAME_OF_REFERENCE
        assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
        segments = dataset.SegmentSequence
        assert [each.SegmentNumber for each in segments] == [1, 2, 3]
        labels = [each.SegmentLabel for each in segments]
        assert labels == ["Leber (größer) 肝", "Segment_9", "kidney"]
        assert {each.SegmentAlgorithmType for each in segments} == {"AUTOMATIC"}
        assert {each.SegmentAlgorithmName for each in segments} == {"SAMFineTune"}
        assert segments[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
        kind = segments[2].SegmentedPropertyTypeCodeSequence[0]
        assert kind.CodeMeaning == "Kidney"
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
        back = read_labelmap(tmp_path / "out.dcm")
        assert back.names == {1: "Leber (größer) 肝", 2: "Segment_9", 3: "kidney"}
        assert back.colours[1] == pytest.approx((1, 0, 0), abs=0.01)
        assert back.colours[3] == pytest.approx((0.25, 0.5, 0.75), abs=0.01)
        assert back.terminologies[3].split("~")[1:4] == LEFT_KIDNEY.split("~")[1:4]
        assert back.terminologies[3].split("~")[5:] == LEFT_KIDNEY.split("~")[5:]

    def test_an_empty_one(self, tmp_path):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack())
        sources = source_headers(tmp_path / "series", volume.geometry)
        empty = replace(labelmap, array=np.zeros_like(labelmap.array))
        write_segmentation(tmp_path / "out.dcm", empty, [5, 52], sources)
        dataset = pydicom.dcmread(tmp_path / "out.dcm")
        assert not dataset.pixel_array.any() and len(dataset.SegmentSequence) == 2
        assert read_labelmap(tmp_path / "out.dcm", empty_ok=True).labels == []

    def test_fields_that_may_be_empty_and_are_left_out(self, tmp_path):
        random = np.random.default_rng(0)
        left_out = ("PatientName", "PatientID", "SliceThickness")
        write_series(
            tmp_path / "series", random.integers(0, 9, (4, 6, 8)), Stack(), leave_out=left_out
        )
        volume = read_volume(tmp_path / "series")
        labels = Labelmap((volume.array > 5).astype(np.uint8), volume.geometry)
        sources = source_headers(tmp_path / "series", volume.geometry)
        write_segmentation(tmp_path / "out.dcm", labels, [1], sources)
        assert (
            labelmap_onto(read_labelmap(tmp_path / "out.dcm"), volume.geometry).array
            == labels.array
        ).all()

    @pytest.mark.parametrize("field", ["FrameOfReferenceUID", "StudyInstanceUID"])
    def test_a_source_that_does_not_tell_where_it_belongs(self, tmp_path, field):
        write_series(tmp_path / "series", np.ones((3, 4, 5), int), Stack(), leave_out=[field])
        volume = read_volume(tmp_path / "series")
        sources = source_headers(tmp_path / "series", volume.geometry)
        error = refused(rehearse, tmp_path / "out.dcm", volume.geometry, [1], sources)
        assert field in str(error)

    def test_a_series_that_is_not_the_volume(self, tmp_path):
        volume, _ = series_and_labels(tmp_path / "series", Stack())
        elsewhere = replace(volume.geometry, origin=(0.0, 0.0, 0.0))
        assert refused(source_headers, tmp_path / "series", elsewhere).code == "no_source_series"

    def test_an_older_file_stays_where_another_was_read_back(self, tmp_path, monkeypatch):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack())
        (tmp_path / "out.dcm").write_text("older")
        sources = source_headers(tmp_path / "series", volume.geometry)
        moved = replace(labelmap, array=np.roll(labelmap.array > 0, 1, axis=1).astype(np.uint8))
        monkeypatch.setattr(
            "SAMFineTuneLib.volumes.dicom_segmentation_writing.read_segmentation",
            lambda path, over: moved,
        )
        error = refused(write_segmentation, tmp_path / "out.dcm", labelmap, [5, 52], sources)
        assert error.code == "unwritable"
        assert (tmp_path / "out.dcm").read_text() == "older"
        assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []

    @pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
    def test_it_is_as_the_standard_says(self, tmp_path):
        volume, labelmap = series_and_labels(tmp_path / "series", Stack(OBLIQUE))
        sources = source_headers(tmp_path / "series", volume.geometry)
        write_segmentation(tmp_path / "out.dcm", labelmap, [5, 9, 52], sources)
        done = subprocess.run(
            ["dciodvfy", str(tmp_path / "out.dcm")], capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        assert "Segmentation" in said and "Error" not in said


@pytest.fixture
def shell(monkeypatch: Any, capfd: Any, tmp_path: Path) -> Shell:
    return shell_of(monkeypatch, capfd, tmp_path / "cache")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A DICOM series; SEGs of all its slices and of four; a model that was never tuned."""
    volume, truth = head()
    stack = Stack(OBLIQUE, spacing=(1.0, 1.0), step=3.0)
    write_series(tmp_path / "series", volume.array.astype(int), stack)
    for name, chosen in (("few", [2, 4, 6, 8]), ("all", range(12))):
        segments = {
            label: Segment(
                truth.names[label],
                {
                    float(k): (truth.array[k] == label).astype(np.uint8)
                    for k in chosen
                    if (truth.array[k] == label).any()
                },
            )
            for label in (5, 52)
        }
        write_seg(tmp_path / f"{name}.dcm", stack, segments)
    write_model(tmp_path / "m.safetensors", {1: "bright", 2: "dark"})
    return tmp_path


class TestCommands:
    """Fine-tune on a DICOM segmentation, apply into one, measure one, go on from what is drawn."""

    def test_finetune(self, desk, shell):
        told = shell(
            "finetune", "--volume", desk / "series", "--segmentation", desk / "few.dcm",
            "--output", desk / "tuned.safetensors", "--steps", 2, "--batch", 1,
            "--input-size", 256,
        )  # fmt: skip
        assert told.code == 0, told.err
        assert [label["name"] for label in told.result["labels"]] == ["bright", "dark"]
        assert [label["value"] for label in told.result["labels"]] == [5, 52]

    def test_names_go_through(self, desk, shell):
        told = shell(
            "apply", "--model", desk / "m.safetensors", "--volume", desk / "series",
            "--drawn", desk / "few.dcm", "--output", desk / "out.dcm",
        )  # fmt: skip
        assert told.code == 0, told.err
        assert told.result["volumes"][0]["drawn_slices"] == 4
        assert "label 5 bright is segment 1, label 52 dark is segment 2" in told.err
        found, drawn = read_labelmap(desk / "out.dcm"), read_labelmap(desk / "few.dcm")
        assert found.names == {1: "bright", 2: "dark"}
        volume = read_volume(desk / "series").geometry
        found, drawn = labelmap_onto(found, volume), labelmap_onto(drawn, volume)
        for k in (2, 4, 6, 8):
            assert ((found.array[k] == 1) == (drawn.array[k] == 5)).all()
            assert ((found.array[k] == 2) == (drawn.array[k] == 52)).all()

    def test_evaluate(self, desk, shell):
        told = shell("evaluate", "--prediction", desk / "all.dcm", "--reference", desk / "all.dcm")
        assert told.code == 0, told.err
        assert told.result["mean_dsc"] == 1.0

    def test_refused_before_the_work(self, desk, shell, monkeypatch):
        volume = read_volume(desk / "series")
        write_volume(desk / "v.nii.gz", volume.array, volume.geometry)
        model = ("apply", "--model", desk / "m.safetensors")
        told = shell(*model, "--volume", desk / "v.nii.gz", "--output", desk / "no.dcm")
        assert told.code == 2 and "belongs to a DICOM series" in told.err
        told = shell(
            *model, "--volume", desk / "series", "--output", desk / "no.nii.gz",
            "--uncertainty", desk / "u.dcm",
        )  # fmt: skip
        assert told.code == 2 and "uncertainty" in told.err
        told = shell(
            *model, "--volume", desk / "series", "--volume", desk / "v.nii.gz",
            "--output", desk / "no.dcm",
        )  # fmt: skip
        assert told.code == 2 and "must be a folder" in told.err
        monkeypatch.setitem(sys.modules, "highdicom.seg", None)
        told = shell(*model, "--volume", desk / "series", "--output", desk / "no.dcm")
        assert told.code == 2 and "pip install highdicom" in told.err
        assert not (desk / "no.dcm").exists()

    def test_another_frame_of_reference_is_said(self, desk, shell):
        dataset = pydicom.dcmread(desk / "few.dcm")
        dataset.FrameOfReferenceUID = "1.2.3"
        dataset.save_as(desk / "strange.dcm")
        told = shell(
            "apply", "--model", desk / "m.safetensors", "--volume", desk / "series",
            "--drawn", desk / "strange.dcm", "--output", desk / "out2.nii.gz",
        )  # fmt: skip
        assert told.code == 0, told.err
        assert "another DICOM frame of reference" in told.err

    def test_a_segmentation_of_a_nifti_volume(self, desk, shell):
        volume = read_volume(desk / "series")
        write_volume(desk / "v.nii.gz", volume.array, volume.geometry)
        told = shell(
            "apply", "--model", desk / "m.safetensors", "--volume", desk / "v.nii.gz",
            "--drawn", desk / "few.dcm", "--output", desk / "out.nii.gz",
        )  # fmt: skip
        assert told.code == 0, told.err
        assert told.result["volumes"][0]["drawn_slices"] == 4

    def test_in_the_folder_of_its_series(self, desk, shell, tmp_path):
        shutil.copytree(desk / "series", tmp_path / "all")
        shutil.copy(desk / "few.dcm", tmp_path / "all" / "few.dcm")
        assert read_labelmap(tmp_path / "all").labels == [5, 52]
        assert read_volume(tmp_path / "all").array.shape == (12, 48, 48)
        write_labelmap(tmp_path / "few.nii.gz", read_labelmap(tmp_path / "all"))
