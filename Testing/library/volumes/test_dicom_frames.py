"""DICOM files of several frames, and values of every slice, as volumes."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from SAMFineTuneLib.volumes import read_volume
from Testing.support.synthetic_dicom_series import (
    AXIAL,
    COLUMNS,
    CORONAL,
    CT,
    MR,
    OBLIQUE,
    PET,
    ROWS,
    START,
    assert_every_voxel_in_place,
    dataset,
    interleaved,
    multi_frame,
    one,
    pixels,
    places_along,
    refused,
    save,
    write_slice,
    write_stack,
)


class TestFrames:
    @pytest.mark.parametrize("own_groups", [False, True])
    @pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
    def test_frames_in_any_order(self, tmp_path, orientation, own_groups):
        places = places_along(7, 4.0, orientation)
        data = multi_frame(places[interleaved(7)], orientation, own_groups=own_groups)
        file = save(data, tmp_path / "e")
        for path in (file, tmp_path):
            volume = read_volume(path)
            assert volume.geometry.spacing == pytest.approx((1.5, 2.0, 4.0))
            assert volume.geometry.origin == pytest.approx(tuple(places[0]))
            assert volume.remarks == ()
            assert_every_voxel_in_place(volume)

    @pytest.mark.parametrize("compressed", [False, True])
    def test_every_frame_has_its_own_slope(self, tmp_path, compressed):
        places = places_along(6)
        scaling = [(0.5 + 0.25 * n, 3.0 * n) for n in range(6)]
        data = multi_frame(places[::-1], scaling=scaling)
        if compressed:
            data.compress(RLELossless)
        volume = read_volume(save(data, tmp_path / "e.dcm"))
        assert volume.array.dtype == np.float32
        # A stored number is rounded: half of the largest slope.
        assert_every_voxel_in_place(volume, 0.9)
        stored = pydicom.dcmread(tmp_path / "e.dcm").pixel_array[::-1]
        slope, intercept = (np.array(each)[::-1, None, None] for each in zip(*scaling, strict=True))
        np.testing.assert_allclose(volume.array, stored * slope + intercept, rtol=1e-6)

    def test_a_slope_for_all_frames(self, tmp_path):
        data = multi_frame(places_along(3))
        data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = one(
            RescaleSlope=0.5, RescaleIntercept=-7, RescaleType="HU"
        )
        stored = np.stack([pixels(each) for each in places_along(3)])
        found = read_volume(save(data, tmp_path / "e.dcm")).array
        np.testing.assert_allclose(found, stored * 0.5 - 7)

    def test_a_missing_frame(self, tmp_path):
        places = np.delete(places_along(8), 3, axis=0)
        for path in (save(multi_frame(places), tmp_path / "e.dcm"), tmp_path):
            error = refused(path)
            assert error.code == "uneven_slices"
            assert "frame 3 of e.dcm to frame 4 of e.dcm it is 8.00 mm" in error.message

    def test_a_place_that_is_there_twice(self, tmp_path):
        places = np.repeat(places_along(3), 2, axis=0)
        error = refused(save(multi_frame(places), tmp_path / "e.dcm"))
        assert error.code == "not_3d" and "time series" in error.message

    def test_a_frame_that_lies_another_way(self, tmp_path):
        data = multi_frame(places_along(6), own_groups=True)
        groups = data.PerFrameFunctionalGroupsSequence
        groups[2].PlaneOrientationSequence = one(ImageOrientationPatient=list(CORONAL))
        error = refused(save(data, tmp_path / "e.dcm"))
        assert error.code == "uneven_slices" and "frame 3 of e.dcm" in error.message

    def test_frames_of_a_tilted_scanner(self, tmp_path):
        places = places_along(6) + np.arange(6)[:, None] * [0.0, 1.0, 0.0]
        volume = read_volume(save(multi_frame(places[interleaved(6)]), tmp_path / "e.dcm"))
        assert any("tilted" in remark for remark in volume.remarks)

    def test_a_volume_in_two_files(self, tmp_path):
        places = places_along(8)
        for name, part in (("b", places[:4]), ("a", places[4:])):
            save(multi_frame(part), tmp_path / name)
        volume = read_volume(tmp_path)
        assert volume.array.shape[0] == 8
        assert_every_voxel_in_place(volume)

    def test_two_volumes_of_one_series_each_in_its_file(self, tmp_path):
        for name in ("a", "b"):
            save(multi_frame(places_along(4 if name == "a" else 5)), tmp_path / name)
        error = refused(tmp_path)
        assert error.code == "several_series"
        assert "file a" in error.message and "file b" in error.message
        shapes = {read_volume(tmp_path, str(n)).array.shape[0] for n in (1, 2)}
        assert shapes == {4, 5}
        assert read_volume(tmp_path / "b").array.shape[0] == 5

    def test_a_file_of_frames_beside_a_localizer_and_a_report(self, tmp_path):
        save(multi_frame(places_along(4)), tmp_path / "e")
        kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        write_slice(tmp_path / "scout", START, CORONAL, ImageType=kind)
        save(dataset(np.zeros((2, 2)), Modality="SEG"), tmp_path / "seg")
        volume = read_volume(tmp_path)
        assert volume.array.shape[0] == 4 and "scout" in volume.remarks[0]
        assert_every_voxel_in_place(volume)

    def test_frames_whose_spacing_alone_is_told(self, tmp_path):
        """As in nuclear medicine: one position, and the distance of slices."""
        true = np.stack([pixels(place) for place in places_along(4)])
        data = dataset(true, "1.2.840.10008.5.1.4.1.1.20", Modality="NM", NumberOfFrames=4)
        data.SpacingBetweenSlices = 4
        data.DetectorInformationSequence = one(
            ImagePositionPatient=list(START), ImageOrientationPatient=list(AXIAL)
        )
        volume = read_volume(save(data, tmp_path / "nm.dcm"))
        assert volume.geometry.spacing == pytest.approx((1.5, 2.0, 4.0))
        assert_every_voxel_in_place(volume)

    def test_frames_of_which_nothing_is_told(self, tmp_path):
        data = dataset(np.zeros((3, ROWS, COLUMNS)), NumberOfFrames=3)
        del data.SliceThickness
        volume = read_volume(save(data, tmp_path / "x.dcm"))
        assert volume.geometry.spacing == (1.5, 2.0, 1.0)
        assert any("1 mm apart" in remark for remark in volume.remarks)


class TestValuesOfEverySlice:
    @pytest.mark.parametrize(("kind", "modality"), [(PET, "PT"), (MR, "MR"), (CT, "CT")])
    def test_a_slope_per_slice(self, tmp_path, kind, modality):
        stored = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
        true = []
        for n, place in enumerate(places_along(5)):
            # A whole slope in the first slice once made whole numbers of all.
            slope, intercept = 1.0 if n == 0 else 0.013 * n, 0.5 * n
            true.append(stored * slope + intercept)
            data = dataset(stored, kind, Modality=modality)
            data.ImagePositionPatient, data.ImageOrientationPatient = list(place), list(AXIAL)
            data.RescaleSlope, data.RescaleIntercept = slope, intercept
            save(data, tmp_path / f"{n}.dcm")
        volume = read_volume(tmp_path)
        assert volume.array.dtype == np.float32
        np.testing.assert_allclose(volume.array, true, rtol=1e-6)

    def test_slices_stored_with_and_without_a_sign(self, tmp_path):
        for n, place in enumerate(places_along(2)):
            values = np.full((ROWS, COLUMNS), -5 if n == 0 else 60000)
            data = dataset(values, PixelRepresentation=1 - n)
            data.ImagePositionPatient, data.ImageOrientationPatient = list(place), list(AXIAL)
            save(data, tmp_path / f"{n}.dcm")
        array = read_volume(tmp_path).array
        assert (array[0] == -5).all() and (array[1] == 60000).all()

    def test_another_pixel_spacing(self, tmp_path):
        write_stack(tmp_path)
        write_slice(tmp_path / "im03.dcm", places_along(4)[3], PixelSpacing=[2.5, 1.5])
        error = refused(tmp_path)
        assert "im03.dcm has 1.5 x 2.5 mm, others 1.5 x 2 mm" in error.message

    def test_another_size(self, tmp_path):
        write_stack(tmp_path)
        data = pydicom.dcmread(tmp_path / "im03.dcm")
        data.Rows, data.PixelData = ROWS // 2, data.PixelData[: len(data.PixelData) // 2]
        save(data, tmp_path / "im03.dcm")
        error = refused(tmp_path)
        assert "im03.dcm" in error.message and "12 x 5" in error.message

    @pytest.mark.parametrize("at", [0, 3])
    def test_another_orientation(self, tmp_path, at):
        write_stack(tmp_path)
        turned = (np.cos(0.1), np.sin(0.1), 0.0, -np.sin(0.1), np.cos(0.1), 0.0)
        write_slice(tmp_path / f"im{at:02}.dcm", places_along(6)[at], turned)
        error = refused(tmp_path)
        assert error.code == "uneven_slices"
        assert "orientation" in error.message and f"im{at:02}.dcm" in error.message

    def test_one_slice_of_the_stack_lies_across_it(self, tmp_path):
        write_stack(tmp_path)
        write_slice(tmp_path / "im03.dcm", places_along(4)[3], CORONAL)
        error = refused(tmp_path)
        assert "orientation" in error.message and "im03.dcm" in error.message

    def test_a_slice_without_a_position_among_others(self, tmp_path):
        write_stack(tmp_path)
        write_slice(tmp_path / "im03.dcm", places_along(4)[3], ImagePositionPatient=None)
        assert "im03.dcm" in refused(tmp_path).message
