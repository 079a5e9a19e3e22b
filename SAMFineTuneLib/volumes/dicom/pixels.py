"""Reads the voxels of DICOM planes in a given order, as true values."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.decoded_once import kept
from SAMFineTuneLib.volumes.dicom.header import Plane

# A SOP class whose values ITK reads as they are stored, without a slope.
_PLAIN_FRAMES = "1.2.840.10008.5.1.4.1.1.7.3"
_SCALES = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "RealWorldValueMappingSequence",
    "RescaleSlope",
    "RescaleIntercept",
)


def voxels(where: Path, planes: Sequence[Plane]) -> NDArray[Any]:
    """True values (k, j, i); floating point if the planes are not all stored in the same way.

    Of a colour image red, green, blue (k, j, i, 3), as ITK converts them.

    Args:
        where: the file or folder that messages name.
        planes: planes of the same size, in order.

    Raises:
        InputError: a file is damaged.
    """
    same = all((each.stored, each.scaling) == _way(planes[0]) for each in planes)
    if all(each.frame is None for each in planes):
        return _single_images(where, planes, same)
    return _frames(where, planes, same)


def _way(plane: Plane) -> tuple[Any, ...]:
    return plane.stored, plane.scaling


def _single_images(where: Path, planes: Sequence[Plane], same: bool) -> NDArray[Any]:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(each.file) for each in planes])
    if not same:
        # Otherwise the first file would determine the type of number for all.
        reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _damaged(where, [each.file for each in planes]) from error
    return _channels(where, image)


def _frames(where: Path, planes: Sequence[Plane], same: bool) -> NDArray[Any]:
    files = list(dict.fromkeys(each.file for each in planes))
    content = {
        file: kept(file, f"frames {same}", partial(_stack, where, file, scaled=same))
        for file in files
    }
    chosen = [content[each.file][each.frame or 0] for each in planes]
    if not same:
        chosen = [
            (slice_.astype(np.float64) * each.scaling[0] + each.scaling[1]).astype(np.float32)
            for slice_, each in zip(chosen, planes, strict=True)
        ]
    return np.stack(chosen)


def _stack(where: Path, file: Path, scaled: bool) -> NDArray[Any]:
    """The frames of a file (frames, rows, columns), as true values or as they are stored."""
    try:
        image = sitk.ReadImage(str(file)) if scaled else _as_stored(file)
    except RuntimeError as error:
        raise _damaged(where, [file]) from error
    array = _channels(where, image)
    return array[None] if image.GetDimension() == 2 else array


def _as_stored(file: Path) -> sitk.Image:
    """The stored values of a file, without slopes: the reader would apply one frame's to all."""
    import pydicom

    data = pydicom.dcmread(file)
    for keyword in _SCALES:
        if keyword in data:
            delattr(data, keyword)
    data.SOPClassUID = pydicom.uid.UID(_PLAIN_FRAMES)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.dcm"
        data.save_as(plain)
        return sitk.ReadImage(str(plain))


def _channels(where: Path, image: sitk.Image) -> NDArray[Any]:
    """Grey values, or red, green, blue in a last axis: ITK converts YBR and palettes."""
    channels = image.GetNumberOfComponentsPerPixel()
    if channels not in (1, 3):
        raise InputError(
            f"'{where}' has {channels} values a voxel, which is neither grey nor colour",
            "Give a grey-scale volume",
            code="not_scalar",
        )
    array: NDArray[Any] = sitk.GetArrayFromImage(image)
    return array


def _damaged(where: Path, files: Sequence[Path]) -> InputError:
    """The error for the first file that cannot be read."""
    for file in files:
        try:
            sitk.ReadImage(str(file))
        except RuntimeError:
            name = f"'{file.name}' in '{where}'" if file != where else f"'{file}'"
            return InputError(
                f"the DICOM image {name} is damaged, ends too early, or is stored in a way that "
                "cannot be read",
                "Copy or export it again, without compression if you can choose",
                code="damaged_image",
            )
    return InputError(
        f"the DICOM files in '{where}' do not make one volume",
        "Export the series again, or put its slices of one size into a folder of their own",
        code="damaged_image",
    )
