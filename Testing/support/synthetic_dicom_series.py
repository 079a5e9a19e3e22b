"""DICOM images written with pydicom.

Their values are a linear function of the place in the patient, so that a voxel in a wrong place
has a wrong value, also where slices were interpolated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes import Volume, read_volume

CT, PET, MR = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "128", "4"))
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
COLUMNS, ROWS = 12, 10
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
START = (-40.0, 50.0, 10.0)
SPACING = (1.5, 2.0)
# Frame n of a cine shows the values of its place plus this for each frame.
PER_FRAME = 1000


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


def cine(folder: Path, field: str, times: list[list[Any]], orientation=OBLIQUE, **more) -> Path:
    """A series with a file for each time of each slice; files lie in an order that tells nothing.

    Args:
        folder: for the files.
        field: which tells the time.
        times: for each slice the value of the field for each frame.
        orientation: of the slices.
        more: further fields.
    """
    number = 0
    for place, of_slice in zip(places_along(len(times), 5.0, orientation), times, strict=True):
        for frame, time in enumerate(of_slice):
            number += 7
            told = {
                "ImagePositionPatient": [float(each) for each in place],
                "ImageOrientationPatient": list(orientation),
                field: time,
                **more,
            }
            data = dataset(pixels(place, orientation) + PER_FRAME * frame, **told)
            save(data, folder / f"im{number % 101:03}.dcm")
    return folder


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
