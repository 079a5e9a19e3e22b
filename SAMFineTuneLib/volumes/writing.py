"""Writes arrays with their geometry to image files, which appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.geometry.nifti_forms import read_forms, stamp_forms
from SAMFineTuneLib.image_endings import IMAGE_ENDINGS, names_a_picture
from SAMFineTuneLib.volumes.format_limits import TOLERANCE, require_holdable
from SAMFineTuneLib.volumes.image_grid import grid_of, placed
from SAMFineTuneLib.volumes.labelmap import Colour, Labelmap
from SAMFineTuneLib.volumes.nifti_check import DamagedFileError, non_finite_voxels
from SAMFineTuneLib.volumes.nifti_place import nifti_place
from SAMFineTuneLib.volumes.pictures.segment_text import segment_text
from SAMFineTuneLib.volumes.pictures.writing import write_picture
from SAMFineTuneLib.volumes.quiet import itk_quiet
from SAMFineTuneLib.volumes.segment_header import segment_fields

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} if os.name != "nt" else {errno.ENOSPC}


def write_volume(
    path: str | os.PathLike[str], array: NDArray[Any], geometry: Geometry, *, compress: bool = True
) -> None:
    """Write an array of shape (k, j, i); the file's ending gives the format (`IMAGE_ENDINGS`).

    Missing folders are made. An older file is replaced when the new one is complete.

    Args:
        path: the file.
        array: its voxels.
        geometry: where the voxels lie.
        compress: whether to compress; ignored for .nii and .nii.gz, whose ending decides.

    Raises:
        InputError: the ending is unknown, the format cannot hold the geometry, the file cannot be
            written, or no space is left.
    """
    path = Path(path)
    if names_a_picture(path):
        _write_picture(path, _storable(array), geometry, compress)
        return
    _write(path, array, geometry, {}, compress)


def write_labelmap(
    path: str | os.PathLike[str], labelmap: Labelmap, *, compress: bool = True
) -> None:
    """Write a segmentation; into NRRD with names, colours and terms, as 3D Slicer does.

    Into a picture (PNG, TIFF, BMP) with a palette of the colours, see `write_picture`.

    Args:
        path: the file.
        labelmap: the segmentation.
        compress: as for `write_volume`.

    Raises:
        InputError: as `write_volume`.
    """
    path = Path(path)
    if names_a_picture(path):
        text = segment_text(labelmap.names, labelmap.terminologies)
        _write_picture(path, labelmap.array, labelmap.geometry, compress, labelmap.colours, text)
        return
    fields = segment_fields(labelmap) if path.name.lower().endswith(".nrrd") else {}
    _write(path, labelmap.array, labelmap.geometry, fields, compress)


def files_of(path: Path) -> list[Path]:
    """All files that writing an image of this name makes: .mhd has a second one for voxels."""
    if not path.name.lower().endswith(".mhd"):
        return [path]
    return [path, *(path.with_name(path.name[:-4] + ending) for ending in (".zraw", ".raw"))]


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check before hours of work that an image file can be written at the end.

    Raises:
        InputError: as `write_volume`, except for the geometry, which `require_holdable` checks.
    """
    path = Path(path)
    _check_suffix(path)
    with place_beside(path):
        pass


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """A path for a new file, which is renamed to `path` when the block ends.

    Missing folders are made. If the block raises an exception, no file appears.

    Raises:
        InputError: the file cannot be written, or no space is left.
    """
    with place_beside(path) as folder:
        written = folder / path.name
        try:
            yield written
        except OSError as error:
            raise refused(path, error) from error
        move(written, path)


def _write(
    path: Path,
    array: NDArray[Any],
    geometry: Geometry,
    fields: dict[str, str],
    compress: bool,
) -> None:
    _check_suffix(path)
    array = _storable(array)
    if array.shape != tuple(geometry.shape):
        raise ValueError(f"array {array.shape} does not fit grid {geometry.shape}")
    require_holdable(path, geometry)
    image = placed(sitk.GetImageFromArray(array), geometry)
    for key, value in fields.items():
        image.SetMetaData(key, value)
    with place_beside(path) as folder, itk_quiet():
        # ITK recognises formats only by endings in lower case, also when it reads.
        written = folder / _lower_case_ending(path.name)
        try:
            sitk.WriteImage(image, str(written), useCompression=compress)
            # Some writers do not report that the disk is full, so the file is read again.
            non_finite_voxels(written)
            if geometry.forms is not None and read_forms(written) is not None:
                stamp_forms(written, geometry.forms)
            back = sitk.ReadImage(str(written))
        except (RuntimeError, DamagedFileError) as error:
            raise failed(path, array.nbytes) from error
        # The view is valid only as long as the image exists.
        found = sitk.GetArrayViewFromImage(back)
        if not same_where_finite(found, array):
            raise failed(path, array.nbytes)
        _check_place(path, written, back, geometry)
        move(written, path)


def _write_picture(
    path: Path,
    array: NDArray[Any],
    geometry: Geometry,
    compress: bool,
    colours: Mapping[int, Colour] | None = None,
    text: str = "",
) -> None:
    _check_suffix(path)
    require_holdable(path, geometry)
    with appearing_whole(path) as written:
        if not write_picture(written, array, geometry, compress, colours, text):
            raise failed(path, array.nbytes)


def same_where_finite(found: NDArray[Any], array: NDArray[Any]) -> bool:
    """Whether the values read are those written; the NIfTI reader replaces NaN by 0."""
    if found.shape != array.shape:
        return False
    same = found == array
    return bool((same | ~np.isfinite(array)).all() if array.dtype.kind == "f" else same.all())


def _check_place(path: Path, written: Path, back: sitk.Image, geometry: Geometry) -> None:
    """Refuse a file that was written but places its voxels elsewhere than intended."""
    forms = read_forms(written)
    meant, told = [geometry], [grid_of(back)]
    if forms is not None:
        found = nifti_place(path, forms).geometry
        meant, told = [geometry, *geometry.others], [found, *found.others]
    same = len(meant) == len(told) and all(
        one.same_as(other, TOLERANCE) for one, other in zip(meant, told, strict=True)
    )
    if not same:
        raise InputError(
            f"'{path.name}' could not be written so that its voxels lie at their places",
            "Name a file that ends in .nrrd or .seg.nrrd",
            code="geometry_not_held",
        )


def _check_suffix(path: Path) -> None:
    if not path.name.lower().endswith(IMAGE_ENDINGS):
        raise InputError(
            f"'{path.name}' does not name an image format",
            "End the file's name in " + ", ".join(IMAGE_ENDINGS),
            code="unknown_format",
        )
    try:
        folder = path.is_dir()
    except OSError as error:
        raise refused(path, error) from error
    if folder:
        raise InputError(f"'{path}' is a folder", "Name a file to write", code="unwritable")


def _storable(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    return array.astype(np.float32) if array.dtype == np.float16 else array


@contextmanager
def place_beside(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, on the same disk; removed at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    except OSError as error:
        raise refused(path, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lower_case_ending(name: str) -> str:
    ending = next(each for each in IMAGE_ENDINGS if name.lower().endswith(each))
    return name[: -len(ending)] + ending


def move(written: Path, path: Path) -> None:
    """Move the files to their places, the one that the user named last (.mhd has two files)."""
    others = [file for file in written.parent.iterdir() if file != written]
    try:
        for file in others:
            file.replace(path.parent / file.name)
        written.replace(path)
    except OSError as error:
        raise refused(path, error) from error


def failed(path: Path, needed: int) -> InputError:
    """The error for a writer that failed without giving a reason."""
    if shutil.disk_usage(path.parent).free < needed:
        return _no_space(path)
    return InputError(
        f"'{path}' could not be written",
        "Check that the disk has space and may be written, or name another folder",
        code="unwritable",
    )


def refused(path: Path, error: OSError) -> InputError:
    """The error for a file that the system does not let be written."""
    if error.errno in _NO_SPACE:
        return _no_space(path)
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError | NotADirectoryError):
        reason = "the folder in which it should lie is a file"
    return InputError(
        f"'{path}' cannot be written: {reason}",
        "Name a folder in which you may write",
        code="unwritable",
    )


def _no_space(path: Path) -> InputError:
    return InputError(
        f"no space left for '{path}'", "Free some space or name another disk", code="no_space"
    )
