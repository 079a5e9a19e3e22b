"""Image files and DICOM folders to voxels with their geometry, as they lie in the file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.dicom_header import is_dicom
from SAMFineTuneLib.volumes.dicom_series import read_dicom_file, read_series
from SAMFineTuneLib.volumes.geometry import Geometry
from SAMFineTuneLib.volumes.nifti_check import DamagedFileError, non_finite_voxels
from SAMFineTuneLib.volumes.quiet import itk_quiet
from SAMFineTuneLib.volumes.told_spacing import spacing_remarks

FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd), MetaImage (.mha, .mhd) or a DICOM folder"


class ReadImage(NamedTuple):
    """What a file or folder holds.

    Attributes:
        array: voxels, shape (k, j, i); NaN and infinite ones as they are.
        geometry: where they lie.
        header: the file's own fields.
        modality: "CT", "MR", ... where DICOM says so.
        remarks: what the user should know of how it was read, one sentence each.
        series: UID of the DICOM series, None for other formats.
    """

    array: NDArray[Any]
    geometry: Geometry
    header: dict[str, str]
    modality: str | None = None
    remarks: tuple[str, ...] = ()
    series: str | None = None


def read_image(path: Path, series: str | None = None) -> ReadImage:
    """The 3-D scalar image of a file, or of a DICOM series in a folder.

    Args:
        path: the file or folder.
        series: which DICOM series, as for `read_series`; None where the only one is meant.

    Raises:
        InputError: the file is missing, damaged, no image, or not a 3-D scalar one.
    """
    _check_readable(path)
    bad = np.zeros(0, np.int64)
    with itk_quiet():
        if path.is_dir() or is_dicom(path):
            dicom = (read_series if path.is_dir() else read_dicom_file)(path, series)
            return ReadImage(
                dicom.array, dicom.geometry, {}, dicom.modality, dicom.remarks, dicom.series
            )
        _refuse_series(path, series)
        try:
            bad = non_finite_voxels(path)
        except DamagedFileError as error:
            raise _damaged(path) from error
        image, modality = _read_file(path)
        image = _three_dimensional(image)
    array = sitk.GetArrayFromImage(image)
    if bad.size and array.dtype.kind == "f":
        array.reshape(-1)[bad] = np.nan
    header = {key: _text(image.GetMetaData(key)) for key in image.GetMetaDataKeys()}
    return ReadImage(array, Geometry.from_image(image), header, modality, spacing_remarks(path))


def _refuse_series(path: Path, series: str | None) -> None:
    if series is not None:
        raise InputError(
            f"'{path}' is no DICOM image, so there is no series {series} in it",
            "Choose a series (--series) for DICOM folders alone",
            code="no_such_series",
        )


def _check_readable(path: Path) -> None:
    try:
        exists = path.exists()
    except OSError:
        exists = False
    if not exists:
        raise InputError(
            f"no such file or folder: '{path}'",
            "Check the path; it is taken from the folder in which the command runs",
            code="no_such_file",
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"'{path}' may not be read", "Ask for the right to read it")


def _read_file(path: Path) -> tuple[sitk.Image, str | None]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, str(error)) from error
    header = {key: _text(reader.GetMetaData(key)) for key in reader.GetMetaDataKeys()}
    modality = header.get("0008|0060", "").strip() or None
    _check_scalar_3d(path, reader.GetSize(), reader.GetNumberOfComponents(), header)
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()):
        raise InputError(f"'{path}' holds complex numbers", "Save its magnitude", code="not_scalar")
    try:
        return reader.Execute(), modality
    except RuntimeError as error:
        raise _unreadable(path, str(error)) from error


def _check_scalar_3d(
    path: Path, size: tuple[int, ...], components: int, header: dict[str, str]
) -> None:
    if components > 1 and any(key.startswith("Segment0_") for key in header):
        raise InputError(
            f"'{path}' holds overlapping segments, in {components} layers",
            "In 3D Slicer, take the segments apart so that none overlap, or export them to a "
            "labelmap volume, and save again",
            code="overlapping_segments",
        )
    if components > 1:
        raise InputError(
            f"'{path}' has {components} values a voxel (colour or vector), not one",
            "Give a grey-scale volume",
            code="not_scalar",
        )
    if len(size) > 3 and math.prod(size[3:]) > 1:
        raise InputError(
            f"'{path}' is {len(size)}-D ({' x '.join(map(str, size))}), not 3-D",
            "Save one time point or channel as a volume of its own",
            code="not_3d",
        )


def _three_dimensional(image: sitk.Image) -> sitk.Image:
    """The same image with three axes: a slice gets one, further axes of length 1 go."""
    dimension = image.GetDimension()
    if dimension == 2:
        return sitk.JoinSeries([image])
    if dimension == 3:
        return image
    extract = sitk.ExtractImageFilter()
    extract.SetSize([*image.GetSize()[:3], *[0] * (dimension - 3)])
    extract.SetDirectionCollapseToStrategy(sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOSUBMATRIX)
    flat = extract.Execute(image)
    for key in image.GetMetaDataKeys():
        flat.SetMetaData(key, image.GetMetaData(key))
    return flat


def _unreadable(path: Path, itk_text: str) -> InputError:
    if "orthonormal" in itk_text or "irection" in itk_text:
        return InputError(
            f"the axes of '{path}' are not perpendicular to each other",
            "Resample it in 3D Slicer (Resample Scalar Volume) and save it again",
            code="not_an_image",
        )
    if "Unable to determine ImageIO" in itk_text or not itk_text:
        return InputError(
            f"'{path}' is not an image that can be read", f"Give {FORMATS}", code="not_an_image"
        )
    return _damaged(path)


def _damaged(path: Path) -> InputError:
    return InputError(
        f"the image '{path}' is damaged or ends too early",
        "Copy, download or export it again",
        code="damaged_image",
    )


def _text(value: str) -> str:
    """Header text whose undecodable bytes came as lone surrogates, made printable."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
