"""DICOM series as volumes: every voxel in its place with its true value, or a refusal in words."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes import read_volume, write_volume
from Testing.support.synthetic_dicom_series import (
    AXIAL,
    COLUMNS,
    CORONAL,
    OBLIQUE,
    ROWS,
    SECONDARY_CAPTURE,
    SPACING,
    START,
    assert_every_voxel_in_place,
    dataset,
    normal_of,
    pixels,
    places_along,
    refused,
    save,
    value_at,
    voxel_places,
    write_slice,
    write_stack,
)


class TestPlainSeries:
    @pytest.mark.parametrize("orientation", [AXIAL, CORONAL, OBLIQUE])
    def test_slices_in_any_order_of_names(self, tmp_path, orientation):
        places = places_along(5, 3.0, orientation)
        for name, n in zip("dbeac", range(5), strict=True):
            write_slice(tmp_path / name, places[n], orientation)
        volume = read_volume(tmp_path)
        assert volume.geometry.spacing == pytest.approx((1.5, 2.0, 3.0))
        assert volume.geometry.origin == pytest.approx(tuple(places[0]))
        assert volume.series == "1.2.3.1001" and volume.remarks == ()
        assert_every_voxel_in_place(volume)

    def test_it_agrees_with_another_reader(self, tmp_path):
        write_stack(tmp_path, orientation=OBLIQUE)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
        image, volume = reader.Execute(), read_volume(tmp_path)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.array)
        assert image.GetOrigin() == pytest.approx(volume.geometry.origin)
        assert image.GetSpacing() == pytest.approx(volume.geometry.spacing)
        assert image.GetDirection() == pytest.approx(volume.geometry.direction, abs=1e-6)

    def test_a_file_without_a_preamble(self, tmp_path):
        for n, place in enumerate(places_along(3)):
            data = pydicom.dcmread(write_slice(tmp_path / f"{n}", place))
            with pydicom.filebase.DicomFileLike((tmp_path / f"{n}").open("wb")) as stream:
                stream.is_little_endian, stream.is_implicit_VR = True, True
                del data.file_meta
                pydicom.filewriter.write_dataset(stream, data)
        assert_every_voxel_in_place(read_volume(tmp_path))

    def test_other_objects_beside_the_images_do_not_count(self, tmp_path):
        write_stack(tmp_path)
        for number, modality in enumerate(("SEG", "RTSTRUCT", "SR", "PR", "KO")):
            data = dataset(np.zeros((2, 2)), Modality=modality, SeriesInstanceUID=f"9.{number}")
            if modality != "SEG":
                del data.Rows, data.Columns, data.PixelData
            save(data, tmp_path / f"a_{modality}.dcm")
        (tmp_path / "notes.txt").write_text("no image")
        assert_every_voxel_in_place(read_volume(tmp_path))
        error = refused(tmp_path / "a_RTSTRUCT.dcm")
        assert error.code == "not_an_image" and "contours (RTSTRUCT)" in error.message

    def test_one_slice_of_a_series_says_so(self, tmp_path):
        write_stack(tmp_path)
        volume = read_volume(tmp_path / "im02.dcm")
        assert volume.array.shape == (1, ROWS, COLUMNS)
        assert volume.geometry.spacing == pytest.approx((1.5, 2.0, 3.0))
        assert_every_voxel_in_place(volume)
        assert len(volume.remarks) == 1 and "only this one slice" in volume.remarks[0]
        write_slice(tmp_path / "alone" / "a.dcm", START)
        assert read_volume(tmp_path / "alone" / "a.dcm").remarks == ()

    def test_a_header_that_cannot_be_read_is_said(self, tmp_path):
        write_stack(tmp_path)
        content = (tmp_path / "im05.dcm").read_bytes()
        (tmp_path / "im05.dcm").write_bytes(content[:140] + b"\xff" * 60)
        volume = read_volume(tmp_path)
        assert volume.array.shape[0] == 5
        assert any("im05.dcm" in remark for remark in volume.remarks)
        assert refused(tmp_path / "im05.dcm").code == "damaged_image"

    def test_the_damaged_slice_is_named(self, tmp_path):
        write_stack(tmp_path)
        content = (tmp_path / "im03.dcm").read_bytes()
        (tmp_path / "im03.dcm").write_bytes(content[:-100])
        error = refused(tmp_path)
        assert error.code == "damaged_image" and "im03.dcm" in error.message


class TestTiltedScanner:
    @pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
    @pytest.mark.parametrize("shift", [(0.0, 0.8), (0.0, -1.3), (0.45, 0.0), (-0.7, 0.6)])
    def test_the_stack_is_straightened(self, tmp_path, orientation, shift):
        row, column = np.array(orientation[:3]), np.array(orientation[3:])
        step = shift[0] * row + shift[1] * column
        places = places_along(9, 4.0, orientation) + np.arange(9)[:, None] * step
        for n, place in enumerate(places):
            write_slice(tmp_path / f"{n}.dcm", place, orientation)
        volume = read_volume(tmp_path)
        direction = np.array(volume.geometry.direction).reshape(3, 3)
        np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
        angle = np.degrees(np.arctan2(np.hypot(*shift), 4.0))
        assert any(f"tilted by {angle:.1f} degrees" in remark for remark in volume.remarks)
        places_of_voxels = voxel_places(volume.geometry)
        expected = value_at(places_of_voxels)
        background = min(pixels(place, orientation).min() for place in places)
        for n, place in enumerate(places):
            away = places_of_voxels[n] - place
            i, j = away @ row / SPACING[0], away @ column / SPACING[1]
            beyond = np.maximum.reduce([-i, i - COLUMNS + 1, -j, j - ROWS + 1])
            assert np.abs(away @ normal_of(orientation)).max() < 1e-3
            covered = beyond < 1e-6
            assert covered.sum() >= (COLUMNS - 1) * (ROWS - 1)
            assert np.abs(volume.array[n] - expected[n])[covered].max() <= 1.01
            assert np.abs(volume.array[n][beyond > 0.51] - background).max(initial=0) <= 1
        # Nothing is cut off: the first and the last voxel of each slice lie within the grid.
        inverse = np.linalg.inv(volume.geometry.affine)
        for place in places:
            for i, j in ((0, 0), (COLUMNS - 1, ROWS - 1)):
                corner = place + i * SPACING[0] * row + j * SPACING[1] * column
                index = (inverse @ [*corner, 1])[:3]
                assert (index > -0.01).all()
                assert (index < np.array(volume.geometry.size) - 0.99).all()

    def test_slices_shifted_by_different_amounts(self, tmp_path):
        places = places_along(6)
        places[3, 0] += 5
        for n, place in enumerate(places):
            write_slice(tmp_path / f"{n}.dcm", place)
        error = refused(tmp_path)
        assert "sideways" in error.message and "3.dcm" in error.message


class TestOverviews:
    @pytest.mark.parametrize("kind", ["LOCALIZER", "AXIAL"])
    @pytest.mark.parametrize("orientation", [CORONAL, OBLIQUE])
    def test_a_localizer_in_the_series(self, tmp_path, kind, orientation):
        write_stack(tmp_path)
        write_slice(
            tmp_path / "a_scout.dcm",
            (-40, 95, 102),
            orientation,
            ImageType=["ORIGINAL", "PRIMARY", kind],
        )
        volume = read_volume(tmp_path)
        assert volume.array.shape[0] == 6 and "a_scout.dcm" in volume.remarks[0]
        assert_every_voxel_in_place(volume)

    def test_a_localizer_of_another_size(self, tmp_path):
        write_stack(tmp_path)
        data = dataset(np.zeros((4, 5)), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
        data.ImagePositionPatient, data.ImageOrientationPatient = list(START), list(CORONAL)
        save(data, tmp_path / "scout")
        assert_every_voxel_in_place(read_volume(tmp_path))

    def test_what_lies_beside_a_series_in_series_of_its_own(self, tmp_path):
        write_stack(tmp_path)
        kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        write_slice(tmp_path / "scout", START, CORONAL, ImageType=kind, SeriesInstanceUID="1.2.3.5")
        picture = dataset(np.zeros((5, 5)), SECONDARY_CAPTURE, SeriesInstanceUID="1.2.3.6")
        save(picture, tmp_path / "picture")
        volume = read_volume(tmp_path)
        assert_every_voxel_in_place(volume)
        text = " ".join(volume.remarks)
        assert "localizer" in text and "secondary capture" in text
        assert read_volume(tmp_path, "1.2.3.5").array.shape == (1, ROWS, COLUMNS)


class TestPlacesThatAreNotTold:
    def test_slice_locations(self, tmp_path):
        for n in (2, 0, 3, 1):
            write_slice(
                tmp_path / f"{3 - n}.dcm",
                (0, 0, 2.5 * n),
                ImagePositionPatient=None,
                SliceLocation=2.5 * n,
            )
        volume = read_volume(tmp_path)
        assert volume.geometry.spacing == pytest.approx((1.5, 2.0, 2.5))
        assert_every_voxel_in_place(volume)
        assert any("slice location" in remark for remark in volume.remarks)

    @pytest.mark.parametrize(
        ("fields", "gap", "words"),
        [
            ({"SpacingBetweenSlices": 2.5}, 2.5, "spacing between slices"),
            ({}, 3.0, "slice thickness"),
            ({"SliceThickness": None}, 1.0, "1 mm apart"),
        ],
    )
    def test_distances_alone(self, tmp_path, fields, gap, words):
        for n in range(4):
            write_slice(
                tmp_path / f"{3 - n}.dcm",
                (0, 0, gap * n),
                ImagePositionPatient=None,
                ImageOrientationPatient=None,
                InstanceNumber=n + 1,
                **fields,
            )
        volume = read_volume(tmp_path)
        assert volume.geometry.spacing == pytest.approx((1.5, 2.0, gap))
        assert_every_voxel_in_place(volume)
        text = " ".join(volume.remarks)
        assert words in text and "taken as axial" in text

    def test_missing_slice_locations(self, tmp_path):
        for n in (0, 1, 3, 4):
            write_slice(
                tmp_path / f"{n}.dcm", START, ImagePositionPatient=None, SliceLocation=4 * n
            )
        assert "1.dcm to 3.dcm it is 8.00 mm" in refused(tmp_path).message

    @pytest.mark.parametrize("single", [True, False])
    def test_pixel_spacing(self, tmp_path, single):
        write_stack(tmp_path, PixelSpacing=None)
        volume = read_volume(tmp_path / "im00.dcm" if single else tmp_path)
        assert volume.geometry.spacing[:2] == (1.0, 1.0)
        assert any("spacing of its pixels" in remark for remark in volume.remarks)

    def test_pixel_spacing_at_the_detector(self, tmp_path):
        path = write_slice(
            tmp_path / "a.dcm", START, PixelSpacing=None, ImagerPixelSpacing=[0.2, 0.1]
        )
        volume = read_volume(path)
        assert volume.geometry.spacing[:2] == (0.1, 0.2)
        assert "detector" in volume.remarks[0]

    @pytest.mark.parametrize(
        ("suffix", "taken_out"),
        [
            (".nrrd", b"space directions: "),
            (".mha", b"ElementSpacing = "),
        ],
    )
    def test_other_formats(self, tmp_path, suffix, taken_out):
        path = tmp_path / f"v{suffix}"
        grid = Geometry((5, 4, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        write_volume(path, np.arange(60, dtype=np.int16).reshape(3, 4, 5), grid)
        assert read_volume(path).remarks == ()
        lines = path.read_bytes().split(b"\n")
        kept = [line for line in lines if not line.startswith((taken_out, b"space origin"))]
        assert len(kept) < len(lines)
        path.write_bytes(b"\n".join(kept))
        volume = read_volume(path)
        assert volume.geometry.spacing == (1.0, 1.0, 1.0)
        assert any("does not tell the spacing" in remark for remark in volume.remarks)


class TestGapsAndRepetitions:
    def test_the_gap_is_named(self, tmp_path):
        write_stack(tmp_path, 8)
        (tmp_path / "im04.dcm").unlink()
        (tmp_path / "im05.dcm").unlink()
        error = refused(tmp_path)
        assert error.code == "uneven_slices"
        assert "from im03.dcm to im06.dcm it is 12.00 mm, and 4.00 mm" in error.message
        assert "2 slices are missing there" in error.message

    def test_several_echoes(self, tmp_path):
        for echo in (10, 80):
            write_stack(tmp_path / str(echo), 4, EchoTime=echo)
        error = refused(tmp_path)
        assert error.code == "not_3d" and "echo time 10.0 and 80.0" in error.message

    def test_the_same_image_twice(self, tmp_path):
        write_stack(tmp_path)
        (tmp_path / "copy.dcm").write_bytes((tmp_path / "im02.dcm").read_bytes())
        error = refused(tmp_path)
        assert error.code == "not_3d" and "copy.dcm" in error.message
