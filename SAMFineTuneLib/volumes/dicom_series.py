"""The one image series in a folder of DICOM files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMFineTuneLib.errors import InputError

_MODALITY, _DESCRIPTION = "0008|0060", "0008|103e"
_POSITION, _ORIENTATION = "0020|0032", "0020|0037"

# Kinds of DICOM objects that may lie beside the images and are not images to segment.
_NOT_IMAGES = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "REG", "DOC", "RWV", "FID"}

# How far a slice may lie from its even place: part of the slice spacing.
_UNEVEN = 0.1


@dataclass(frozen=True)
class _Series:
    files: tuple[str, ...]
    modality: str
    description: str

    def __str__(self) -> str:
        name = f" '{self.description}'" if self.description else ""
        return f"{self.modality or 'unknown modality'}{name} ({len(self.files)} files)"


def read_series(folder: Path) -> tuple[sitk.Image, str | None]:
    """The image of the only image series in `folder`, and its modality.

    Raises:
        InputError: no image series, several, or one whose slices are not evenly spaced.
    """
    found = _image_series(folder, recursive=False) or _image_series(folder, recursive=True)
    if not found:
        raise InputError(
            f"'{folder}' holds no DICOM images",
            "Name an image file, or the folder of one DICOM series",
            code="not_an_image",
        )
    if len(found) > 1:
        raise InputError(
            f"'{folder}' holds {len(found)} DICOM series: " + ", ".join(map(str, found)),
            "Put the files of the series to use into a folder of their own",
            code="several_series",
        )
    series = found[0]
    return _load(folder, series), series.modality or None


def _image_series(folder: Path, recursive: bool) -> list[_Series]:
    folders = [folder]
    if recursive:
        folders = sorted(path for path in folder.rglob("*") if path.is_dir())
    found = []
    for place in folders:
        for identifier in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(place)):
            files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(place), identifier)
            series = _described(tuple(files))
            if series is not None and series.modality not in _NOT_IMAGES:
                found.append(series)
    return found


def _described(files: tuple[str, ...]) -> _Series | None:
    """The series with its modality and description; None where it is not an image."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(files[0])
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return _Series(files, _tag(reader, _MODALITY), _tag(reader, _DESCRIPTION))


def _tag(reader: sitk.ImageFileReader, tag: str) -> str:
    return " ".join(reader.GetMetaData(tag).split()) if reader.HasMetaDataKey(tag) else ""


def _load(folder: Path, series: _Series) -> sitk.Image:
    if len(series.files) == 1:
        return sitk.ReadImage(series.files[0])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(series.files)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"the DICOM files in '{folder}' do not make one volume: a file is damaged, or their "
            "sizes differ",
            "Export the series again, or put its slices of one size into a folder of their own",
            code="damaged_image",
        ) from error
    _check_even(folder, reader, len(series.files), image)
    return image


def _check_even(
    folder: Path, reader: sitk.ImageSeriesReader, count: int, image: sitk.Image
) -> None:
    """Refuse slices that do not lie where an image with one spacing puts them."""
    if any(not reader.HasMetaDataKey(index, _POSITION) for index in range(count)):
        return
    texts = [reader.GetMetaData(index, _POSITION) for index in range(count)]
    positions = np.array([[float(part) for part in text.split("\\")] for text in texts])
    direction = np.array(image.GetDirection()).reshape(3, 3)
    away = positions @ direction - (positions @ direction)[0]
    step = float(image.GetSpacing()[2])
    gaps = np.diff(away[:, 2])
    if (np.diff(np.sort(away[:, 2])) < 1e-3).any():
        raise InputError(
            f"the DICOM series in '{folder}' has several images at one place (a time series or "
            "several echoes)",
            "Export one time point or echo as a volume of its own",
            code="not_3d",
        )
    if np.abs(away[:, 2] - step * np.arange(count)).max() > max(_UNEVEN * step, 0.01):
        raise InputError(
            f"the slices of the DICOM series in '{folder}' are not evenly spaced: the gaps go from "
            f"{gaps.min():.2f} to {gaps.max():.2f} mm, so slices are missing or overlap",
            "Export the series again with all its slices, or resample it in 3D Slicer",
            code="uneven_slices",
        )
    if (np.abs(away[:, :2]).max(axis=0) > np.array(image.GetSpacing()[:2])).any():
        raise InputError(
            f"the slices of the DICOM series in '{folder}' are shifted against each other (the "
            "scanner was tilted)",
            "Load it in 3D Slicer, which straightens it, and save it as NRRD",
            code="uneven_slices",
        )
