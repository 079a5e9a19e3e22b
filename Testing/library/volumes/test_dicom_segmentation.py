"""DICOM segmentation objects (SEG) are read: right voxels at right places."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.synthetic_volumes import geometry_of

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from SAMFineTuneLib.errors import InputError  # noqa: E402
from SAMFineTuneLib.volumes import labelmap_onto, read_labelmap, read_volume  # noqa: E402
from SAMFineTuneLib.volumes.dicom.terms import entry_of, terms_of  # noqa: E402
from SAMFineTuneLib.volumes.image_grid import placed  # noqa: E402
from Testing.support.dicom_segmentations import (  # noqa: E402
    COLUMNS,
    LEFT_KIDNEY,
    LIVER,
    LIVER_PLANES,
    ORIENTATIONS,
    ROWS,
    SPLEEN_PLANES,
    marked,
    pixels,
    places_of,
    refused,
    same_places,
    two_segments,
)
from Testing.support.synthetic_dicom_objects import (  # noqa: E402
    FRAME_OF_REFERENCE,
    OBLIQUE,
    Segment,
    Stack,
    write_seg,
)


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
        assert "spleen is no segment" in read_labelmap(path, on_top=["3", "2", "spleen"]).remarks[0]

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
