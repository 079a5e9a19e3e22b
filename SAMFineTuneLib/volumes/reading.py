"""Image files to arrays with their geometry: NIfTI, NRRD, MetaImage, DICOM."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.dicom_series import read_series
from SAMFineTuneLib.volumes.geometry import Geometry
from SAMFineTuneLib.volumes.labelmap import Labelmap, present_labels, smallest_label_type
from SAMFineTuneLib.volumes.nifti_check import DamagedFileError, non_finite_voxels
from SAMFineTuneLib.volumes.quiet import itk_quiet
from SAMFineTuneLib.volumes.segment_header import segments

FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd), MetaImage (.mha, .mhd) or a DICOM folder"

# The largest brain and whole-body atlases have a few hundred labels; an image has thousands.
_MOST_LABELS = 2000
_LARGEST_LABEL = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D scalar image.

    Attributes:
        array: intensities, shape (k, j, i), the file's own number type, all finite.
        geometry: where the voxels lie.
        modality: "CT", "MR", ... where DICOM says so, else None.
        non_finite: how many voxels were NaN or infinite and got the lowest finite value.
    """

    array: NDArray[Any]
    geometry: Geometry
    modality: str | None = None
    non_finite: int = 0

    def __post_init__(self) -> None:
        if self.array.shape != tuple(self.geometry.shape):
            raise ValueError(f"array {self.array.shape} does not fit grid {self.geometry.shape}")


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a 3-D scalar image from a file or from a folder with one DICOM series.

    An image of one slice is a volume with k = 1.

    Raises:
        InputError: the file is missing, damaged, no image, or not a 3-D scalar one.
    """
    image, array, modality = _read(Path(path))
    array, non_finite = _finite(Path(path), array)
    return Volume(array, Geometry.from_image(image), modality, non_finite)


def read_labelmap(path: str | os.PathLike[str], *, empty_ok: bool = False) -> Labelmap:
    """Read a segmentation, with names, colours and terms where 3D Slicer wrote them into an NRRD.

    Whole numbers that are stored as floating point are accepted; NaN and infinite voxels count as
    background.

    Args:
        path: the file.
        empty_ok: accept a segmentation without a single labelled voxel, as a prediction may be.

    Raises:
        InputError: as `read_volume`, and where the values cannot be labels or are all background.
    """
    path = Path(path)
    image, array, _ = _read(path)
    array, non_finite = _labels_of(path, array)
    if not (empty_ok or array.any()):
        raise InputError(
            f"the segmentation '{path}' is empty: all its voxels are 0",
            "Label the structure on some slices first, or name the right file",
            code="empty_segmentation",
        )
    header = {key: _text(image.GetMetaData(key)) for key in image.GetMetaDataKeys()}
    told = segments(header)
    return Labelmap(
        array,
        Geometry.from_image(image),
        told.names,
        told.colours,
        non_finite,
        told.terminologies,
    )


def _read(path: Path) -> tuple[sitk.Image, NDArray[Any], str | None]:
    """A 3-D scalar image, its voxels (NaN and infinite ones as they are) and its modality."""
    _check_readable(path)
    bad = np.zeros(0, np.int64)
    with itk_quiet():
        if path.is_dir():
            image, modality = read_series(path)
            _check_scalar_3d(path, image.GetSize(), image.GetNumberOfComponentsPerPixel(), {})
        else:
            try:
                bad = non_finite_voxels(path)
            except DamagedFileError as error:
                raise _damaged(path) from error
            image, modality = _read_file(path)
        image = _three_dimensional(image)
    array = sitk.GetArrayFromImage(image)
    if bad.size and array.dtype.kind == "f":
        array.reshape(-1)[bad] = np.nan
    return image, array, modality


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
    if modality == "SEG":
        raise InputError(
            f"'{path}' is a DICOM segmentation object, which cannot be read",
            "Load it in 3D Slicer (QuantitativeReporting extension) and save it as .seg.nrrd",
            code="not_an_image",
        )
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


def _finite(path: Path, array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The array with its lowest finite value wherever it was NaN or infinite, and how many."""
    if array.dtype.kind != "f":
        return array, 0
    good = np.isfinite(array)
    count = int(array.size - np.count_nonzero(good))
    if count == array.size:
        raise InputError(
            f"'{path}' holds no finite number", "Give another image", code="not_an_image"
        )
    if count:
        array[~good] = array[good].min()
    return array, count


def _labels_of(path: Path, array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The array in the smallest integer type for its labels; how many voxels were not finite."""
    non_finite = 0
    if array.dtype.kind == "f":
        good = np.isfinite(array)
        non_finite = int(array.size - np.count_nonzero(good))
        if non_finite:
            array[~good] = 0
        fractions = array != np.rint(array)
        if fractions.any():
            raise InputError(
                f"'{path}' is not a segmentation: it holds values such as "
                f"{array[fractions][0]:.4g}, and labels are whole numbers",
                "Give a labelmap, or threshold this image first",
                code="not_integral",
            )
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if low < 0 or high > _LARGEST_LABEL:
        raise InputError(
            f"'{path}' is not a segmentation: it holds the value {low if low < 0 else high:.0f}",
            "Labels are whole numbers from 1, background is 0; was the image given in place of "
            "its segmentation?",
            code="not_integral",
        )
    array = array.astype(smallest_label_type(int(high)), copy=False)
    count = len(present_labels(array))
    if count > _MOST_LABELS:
        raise InputError(
            f"'{path}' is not a segmentation: it holds {count} different values",
            "Was the image given in place of its segmentation?",
            code="not_integral",
        )
    return array, non_finite


def _text(value: str) -> str:
    """Header text whose undecodable bytes came as lone surrogates, made printable."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def non_finite_warning(path: Path, count: int) -> str:
    """What to tell the user of an image with voxels that are no numbers."""
    return (
        f"{path.name} has {count} voxels that are no numbers (NaN or infinite); "
        "they are treated as background"
    )
