"""DICOM images as volumes: every voxel in its place with its true value, or a refusal in words.

The files are written with pydicom. Their values are a linear function of the place in the patient,
so that a voxel in a wrong place has a wrong value, also where slices were interpolated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.interactive.protocol import SessionSettings
from SAMFineTuneLib.jobs.schema import ApplyJob, Example, FinetuneJob, make_job
from SAMFineTuneLib.jobs.series_choice import series_of_volumes
from SAMFineTuneLib.tasks.drawn_slices import known_structures, require_drawn
from SAMFineTuneLib.training.examples import ExampleSource, load_examples
from SAMFineTuneLib.volumes import Labelmap, Volume, read_volume, write_labelmap, write_volume

CT, PET, MR = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "128", "4"))
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
COLUMNS, ROWS = 12, 10
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
START = (-40.0, 50.0, 10.0)
SPACING = (1.5, 2.0)


def value_at(places: np.ndarray) -> np.ndarray:
    """What an image shows at places in LPS mm, shape (..., 3)."""
    return places @ np.array([2.0, 4.0, 8.0])


def pixels(position, orientation=AXIAL, spacing=SPACING) -> np.ndarray:
    """(rows, columns) of a slice; `spacing` is along a row, and down a column."""
    i, j = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    return value_at(
        np.array(position) + i[..., None] * row * spacing[0] + j[..., None] * column * spacing[1]
    )


def normal_of(orientation) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def dataset(values: np.ndarray, kind: str = CT, **fields: Any) -> Dataset:
    """A DICOM object with 16-bit pixels; a field of None is left out."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(kind)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    told = {
        "Modality": "CT",
        "SeriesInstanceUID": "1.2.3.1001",
        "StudyInstanceUID": "1.2.3",
        "SeriesNumber": 1,
        "StudyDate": "20200102",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PixelSpacing": [SPACING[1], SPACING[0]],
        "SliceThickness": 3,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": values.shape[-2],
        "Columns": values.shape[-1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        **fields,
    }
    for name, value in told.items():
        if value is not None:
            setattr(data, name, value)
    signed = told["PixelRepresentation"]
    data.PixelData = np.rint(values).astype(np.int16 if signed else np.uint16).tobytes()
    return data


def save(data: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_slice(path: Path, position, orientation=AXIAL, **fields: Any) -> Path:
    told = {
        "ImagePositionPatient": [float(each) for each in position],
        "ImageOrientationPatient": list(orientation),
        **fields,
    }
    return save(dataset(pixels(position, orientation), **told), path)


def places_along(count: int, gap: float = 4.0, orientation=AXIAL, start=START) -> np.ndarray:
    return np.array(start) + gap * np.arange(count)[:, None] * normal_of(orientation)


def write_stack(folder: Path, count: int = 6, orientation=AXIAL, start=START, **fields: Any):
    for n, place in enumerate(places_along(count, 4.0, orientation, start)):
        own = {"InstanceNumber": n + 1, **fields}
        write_slice(folder / f"im{n:02}.dcm", place, orientation, **own)
    return folder


def one(**fields: Any) -> Items:
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return Items([item])


def multi_frame(places, orientation=AXIAL, scaling=None, own_groups=False, **fields) -> Dataset:
    """An enhanced CT with its frames in the order of the places.

    `scaling` are slope and intercept of each frame; `own_groups` repeats in every frame what else
    is shared.
    """
    true = np.stack([pixels(place, orientation) for place in places])
    slopes = scaling or [(1.0, 0.0)] * len(places)
    stored = np.stack([(t - b) / a for t, (a, b) in zip(true, slopes, strict=True)])
    data = dataset(
        stored,
        ENHANCED_CT,
        **{"PixelSpacing": None, "SliceThickness": None, "RescaleSlope": None}
        | {"RescaleIntercept": None, "NumberOfFrames": len(places)}
        | fields,
    )
    shared, frames = Dataset(), []
    for place, (slope, intercept) in zip(places, slopes, strict=True):
        frame = Dataset()
        frame.PlanePositionSequence = one(ImagePositionPatient=[float(each) for each in place])
        target = frame if own_groups else shared
        target.PlaneOrientationSequence = one(ImageOrientationPatient=list(orientation))
        target.PixelMeasuresSequence = one(PixelSpacing=[SPACING[1], SPACING[0]], SliceThickness=4)
        values = frame if scaling else target
        values.PixelValueTransformationSequence = one(
            RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU"
        )
        frames.append(frame)
    data.SharedFunctionalGroupsSequence = Items([shared])
    data.PerFrameFunctionalGroupsSequence = Items(frames)
    return data


def interleaved(count: int) -> list[int]:
    return [*range(0, count, 2), *range(1, count, 2)]


def voxel_places(geometry: Geometry) -> np.ndarray:
    """(k, j, i, 3) places in LPS mm."""
    k, j, i = np.indices(geometry.shape)
    index = np.stack([i, j, k, np.ones_like(i)], axis=-1)
    return (index @ geometry.affine.T)[..., :3]


def assert_every_voxel_in_place(volume: Volume, tolerance: float = 0.51) -> None:
    expected = value_at(voxel_places(volume.geometry))
    assert np.abs(volume.array - expected).max() <= tolerance


def refused(*arguments: Any, action=read_volume) -> InputError:
    with pytest.raises(InputError) as caught:
        action(*arguments)
    return caught.value


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

    def test_colours_are_refused(self, tmp_path):
        data = dataset(np.zeros((ROWS, COLUMNS * 3)), Columns=COLUMNS, BitsAllocated=8)
        data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
        save(data, tmp_path / "a.dcm")
        assert refused(tmp_path).code == refused(tmp_path / "a.dcm").code == "not_scalar"


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
    @pytest.mark.parametrize("kind, modality", [(PET, "PT"), (MR, "MR"), (CT, "CT")])
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
        "fields, gap, words",
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
        "suffix, taken_out",
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


SERIES = ("1.2.826.71001", "1.2.826.72002")


def two_series(folder: Path) -> Path:
    """Two series of one description in one folder, told apart by their numbers; bright blobs."""
    for number, uid in enumerate(SERIES, start=1):
        for n in range(8):
            values = np.random.default_rng(n).normal(20 * number, 3, (48, 40))
            if 2 <= n < 6:
                values[10:30, 10 + 5 * number : 25 + 5 * number] += 100
            data = dataset(
                values, SeriesInstanceUID=uid, SeriesNumber=number, SeriesDescription="venous"
            )
            data.ImagePositionPatient = [0, 0, 4 * n + number]
            data.ImageOrientationPatient = list(AXIAL)
            save(data, folder / f"{number}_{n}.dcm")
    return folder


def labels_for(folder: Path, number: int, path: Path, slices=range(8)) -> Path:
    volume = read_volume(folder, SERIES[number - 1])
    array = (volume.array > 20 * number + 50).astype(np.uint8)
    array[[n for n in range(8) if n not in slices]] = 0
    write_labelmap(path, Labelmap(array, volume.geometry))
    return path


class TestSeveralSeries:
    def test_they_are_told_apart(self, tmp_path):
        error = refused(two_series(tmp_path))
        assert error.code == "several_series" and "by its number" in error.remedy
        for number, uid in enumerate(SERIES, start=1):
            assert f"{number}: CT 'venous' (8 files), series number {number}" in error.message
            assert f"40 x 48 x 8, UID ...{uid[-8:]}" in error.message
        assert "2020-01-02" in error.message

    @pytest.mark.parametrize("wanted", ["2", SERIES[1], "72002", "...826.72002"])
    def test_one_is_chosen(self, tmp_path, wanted):
        volume = read_volume(two_series(tmp_path), wanted)
        assert volume.series == SERIES[1] and volume.remarks == ()
        assert volume.geometry.origin == (0.0, 0.0, 2.0)

    @pytest.mark.parametrize("wanted", ["0", "3", "1.2.3", "826"])
    def test_one_that_is_not_there(self, tmp_path, wanted):
        error = refused(two_series(tmp_path), wanted)
        assert error.code == "no_such_series" and "venous" in error.message

    def test_a_choice_for_a_file(self, tmp_path):
        folder = two_series(tmp_path)
        assert read_volume(folder / "1_3.dcm", SERIES[0]).array.shape[0] == 1
        assert refused(folder / "1_3.dcm", SERIES[1]).code == "no_such_series"
        write_labelmap(tmp_path / "l.nrrd", Labelmap(np.ones((2, 2, 2), np.uint8), UNIT))
        assert refused(tmp_path / "l.nrrd", "1").code == "no_such_series"

    def test_folders_below(self, tmp_path):
        write_stack(tmp_path / "a" / "x", SeriesInstanceUID="1.2.3.1111")
        write_stack(tmp_path / "b", SeriesInstanceUID="1.2.3.2222")
        error = refused(tmp_path)
        assert f"in {Path('a') / 'x'}" in error.message and "in b" in error.message
        assert read_volume(tmp_path, "1.2.3.2222").series == "1.2.3.2222"
        write_stack(tmp_path, SeriesInstanceUID="1.2.3.3333")
        assert read_volume(tmp_path).series == "1.2.3.3333"
        assert read_volume(tmp_path, "1.2.3.1111").series == "1.2.3.1111"

    def test_a_series_spread_over_folders(self, tmp_path):
        write_stack(tmp_path)
        for n in range(3):
            (tmp_path / "more").mkdir(exist_ok=True)
            (tmp_path / f"im{n:02}.dcm").rename(tmp_path / "more" / f"im{n:02}.dcm")
        (tmp_path / "rest").mkdir()
        for path in tmp_path.glob("*.dcm"):
            path.rename(tmp_path / "rest" / path.name)
        assert_every_voxel_in_place(read_volume(tmp_path))

    def test_one_choice_for_all_folders_or_one_for_each(self, tmp_path):
        folders = [tmp_path / name for name in "ab"]
        for each in folders:
            each.mkdir()
        volumes = [folders[0], tmp_path / "c.nii.gz", folders[1]]
        assert series_of_volumes(volumes, []) == [None, None, None]
        assert series_of_volumes(volumes, ["2"]) == ["2", None, "2"]
        assert series_of_volumes(volumes, ["2", "1"]) == ["2", None, "1"]
        for wrong in (["1", "2", "3"],):
            assert refused(volumes, wrong, action=series_of_volumes).code == "contrary_options"
        assert refused(volumes[1:2], ["1"], action=series_of_volumes).code == "contrary_options"


UNIT = Geometry((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


class TestSeriesInJobs:
    def test_a_number_or_a_uid_is_accepted(self):
        fields = {"volume": "a", "segmentation": "b"}
        assert Example.model_validate({**fields, "series": 2}).series == "2"
        assert Example.model_validate({**fields, "series": SERIES[0]}).series == SERIES[0]
        for wrong in (0, "", "  ", 1.5, True, "1" * 65):
            with pytest.raises(InputError):
                make_job(
                    FinetuneJob,
                    {"examples": [{**fields, "series": wrong}], "output": "m.safetensors"},
                )
        job = {"model": "m.safetensors", "volumes": ["a"], "output": "b", "series": ["2"]}
        assert make_job(ApplyJob, job).series == ["2"]
        assert SessionSettings.model_validate({"volume": "a", "series": "2"}).series == "2"

    def test_examples_of_two_series_are_of_two_volumes(self, tmp_path):
        folder = two_series(tmp_path / "d")
        labels = [labels_for(folder, n, tmp_path / f"{n}.nrrd") for n in (1, 2)]
        both = [ExampleSource(folder, labels[n], series=str(n + 1)) for n in (0, 1)]
        assert load_examples(both).volumes == 2
        same = [ExampleSource(folder, labels[0], series=each) for each in ("1", SERIES[0])]
        assert load_examples(same).volumes == 1

    def test_what_is_drawn_is_of_one_series(self, tmp_path):
        folder = two_series(tmp_path / "d")
        labels = labels_for(folder, 1, tmp_path / "1.nrrd", [3])
        example = Example(volume=folder, segmentation=labels, series="1")
        words: list[str] = []
        for series, found in ((SERIES[0], 1), ("1", 1), (SERIES[1], 0), ("2", 0)):
            volume = read_volume(folder, series)
            known = known_structures(
                [example], folder, volume, {1: ""}, "axial", words.append, series=series
            )
            assert len(known) == found
            words.clear()
            require_drawn([example], [folder], words.append, [series])
            assert len(words) == 1 - found

    def test_from_labels_to_segmentations(self, tmp_path, monkeypatch):
        """The commands themselves: learnt on one series, applied to both of the same folder."""
        from SAMFineTuneLib.cli import main

        monkeypatch.setenv("SAMFINETUNE_CACHE", str(tmp_path / "cache"))
        folder = two_series(tmp_path / "d")
        labels = labels_for(folder, 2, tmp_path / "2.nrrd", [2, 4, 5])
        model = tmp_path / "m.safetensors"
        learn = ["finetune", "--volume", str(folder), "--segmentation", str(labels)]
        tiny = ["--steps", "2", "--batch", "1", "--input-size", "256", "--output", str(model)]
        assert main([*learn, *tiny]) == 2
        assert main([*learn, *tiny, "--series", "2"]) == 0
        use = ["apply", "--model", str(model), "--output", str(tmp_path / "out")]
        both = ["--volume", str(folder), "--series", "1", "--volume", str(folder), "--series"]
        assert main([*use, *both, SERIES[1]]) == 0
        written = sorted((tmp_path / "out").iterdir())
        origins = [sitk.ReadImage(str(path)).GetOrigin()[2] for path in written]
        assert sorted(origins) == pytest.approx([1.0, 2.0])

        examples = tmp_path / "examples.json"
        entry = {"volume": str(folder), "segmentation": str(labels), "series": 2}
        examples.write_text(json.dumps([entry]))
        drawn = ["--examples", str(examples), "--volume", str(folder), "--series", SERIES[1]]
        assert main([*use, *drawn]) == 0
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
        file = tmp_path / "out" / "d_segmentation.nii.gz"
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        np.testing.assert_array_equal(found[[2, 4, 5]], truth[[2, 4, 5]])
