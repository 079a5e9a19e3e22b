"""Reads with nibabel the formats that ITK cannot read: NIfTI-2, and FreeSurfer's .mgz and .mgh."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.geometry.nifti_forms import (
    header_file,
    read_forms,
    read_time_step,
    unpacked,
    voxel_file,
)
from SAMFineTuneLib.volumes.decoded_once import kept
from SAMFineTuneLib.volumes.frames import TimeAxis, require_frame
from SAMFineTuneLib.volumes.nifti_place import nifti_place

_FREESURFER = (".mgz", ".mgh", ".mgh.gz")
_BLOCK = 1 << 22

# Byte offset of the flag in a FreeSurfer header that says whether the header gives a place.
_GOOD_RAS = 28


class NibabelImage(NamedTuple):
    """The voxels (k, j, i), their geometry, and remarks for the user on how they were read."""

    array: NDArray[Any]
    geometry: Geometry
    remarks: tuple[str, ...]


def is_for_nibabel(path: Path) -> bool:
    """Whether a file is one that nibabel has to read."""
    return _is_freesurfer(path) or _is_nifti_2(path)


def read_with_nibabel(path: Path, frame: int | None = None) -> NibabelImage:
    """The 3-D scalar image of a NIfTI-2 or FreeSurfer file.

    Args:
        path: the file.
        frame: which frame, if it has several.

    Raises:
        InputError: nibabel is not installed, or the file is damaged or no 3-D scalar image; or it
            has several frames and none is chosen, or there is no such frame.
    """
    nibabel = _nibabel(path)
    header, geometry, remarks = _header(nibabel, path)
    number = require_frame(path, _time_axis(path, header), frame)

    def decoded() -> NDArray[Any]:
        with _damage_in_words(path, nibabel):
            _check_length(path, header)
            return np.asanyarray(_opened(nibabel, path).dataobj)

    array = kept(path, "array", decoded)
    if array.ndim > 3:
        array = array[:, :, :, number]
    volume = _as_volume(array, header.get_data_dtype())
    if volume.shape != geometry.shape:
        raise _damaged(path)
    return NibabelImage(volume, geometry, remarks)


def geometry_with_nibabel(path: Path) -> Geometry:
    """The geometry of such a file, without reading its voxels.

    Raises:
        InputError: as `read_with_nibabel`.
    """
    return _header(_nibabel(path), path)[1]


def time_axis_with_nibabel(path: Path) -> TimeAxis:
    """The axis of time of such a file.

    Raises:
        InputError: as `read_with_nibabel`.
    """
    return _time_axis(path, _header(_nibabel(path), path)[0])


def _time_axis(path: Path, header: Any) -> TimeAxis:
    shape = tuple(int(length) for length in header.get_data_shape())
    return TimeAxis((*shape, 1, 1, 1)[3], read_time_step(path))


def _is_freesurfer(path: Path) -> bool:
    return path.name.lower().endswith(_FREESURFER)


def _is_nifti_2(path: Path) -> bool:
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")):
        return False
    forms = read_forms(path)
    return forms is not None and forms.version == 2


def _nibabel(path: Path) -> ModuleType:
    try:
        import nibabel
    except ImportError as error:
        kind = "a FreeSurfer image" if _is_freesurfer(path) else "NIfTI-2"
        raise InputError(
            f"'{path}' is {kind}, for which the package nibabel is needed",
            'Install it (pip install "SAMFineTune[nibabel]", or pip install nibabel), or save the '
            "image as NIfTI-1 or NRRD",
            code="package_missing",
            packages="nibabel",
        ) from error
    return nibabel


def _header(nibabel: ModuleType, path: Path) -> tuple[Any, Geometry, tuple[str, ...]]:
    """The header, checked, and the place that it gives."""
    kind = nibabel.MGHImage if _is_freesurfer(path) else nibabel.Nifti2Image
    with _damage_in_words(path, nibabel):
        with unpacked(header_file(path)) as stream:
            header = kind.header_class.from_fileobj(stream, check=False)
        shape = tuple(int(length) for length in header.get_data_shape())
        number = header.get_data_dtype()
    _check(path, number, shape)
    return (header, *_place(path, header, shape))


def _opened(nibabel: ModuleType, path: Path) -> Any:
    """The image; whether it is packed is found out from its content, not its name."""
    if _is_freesurfer(path) or path.name.lower().endswith((".nii", ".nii.gz")):
        kind = nibabel.MGHImage if _is_freesurfer(path) else nibabel.Nifti2Image
        # Reading to the end checks the checksum of a packed file.
        with unpacked(path) as stream:
            return kind.from_bytes(stream.read())
    return nibabel.Nifti2Pair.from_filename(str(path))


def _check_length(path: Path, header: Any) -> None:
    """Refuse a file that is shorter than its header says; reading on checks its checksum."""
    needed = math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
    with unpacked(voxel_file(path)) as stream:
        length = sum(iter(lambda: len(stream.read(_BLOCK)), 0))
    if length < header.get_data_offset() + needed:
        raise _damaged(path)


def _check(path: Path, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if kind.fields is not None:
        raise InputError(
            f"'{path}' has {len(kind.fields)} values a voxel (colour or vector), not one",
            "Give a grey-scale volume",
            code="not_scalar",
        )
    if kind.kind == "c":
        raise InputError(f"'{path}' holds complex numbers", "Save its magnitude", code="not_scalar")
    if any(length < 1 for length in shape) or not shape:
        raise InputError(f"'{path}' holds no voxels", "Export it again", code="damaged_image")
    if any(length > 1 for length in shape[4:]):
        raise InputError(
            f"'{path}' is {len(shape)}-D ({' x '.join(map(str, shape))}), not 3-D",
            "Save one time point or channel as a volume of its own",
            code="not_3d",
        )


def _place(path: Path, header: Any, shape: tuple[int, ...]) -> tuple[Geometry, tuple[str, ...]]:
    forms = None if _is_freesurfer(path) else read_forms(path)
    if forms is not None:
        return nifti_place(path, forms)
    affine = np.asarray(header.get_affine(), dtype=float)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (lengths > 0).all() or lengths.max() > 1e9:
        raise _damaged(path)
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
        raise _damaged(path)
    i, j, k = (*shape, 1, 1)[:3]
    geometry = Geometry.from_affine((i, j, k), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    # Read from the file itself, because nibabel sets the flag when it fills in a default place.
    with unpacked(path) as stream:
        told = stream.read(_GOOD_RAS + 2)[_GOOD_RAS:]
    if not any(told):
        remark = (
            f"{path.name} does not say where its image lies in the patient; it is taken as a "
            "coronal one around the origin, as FreeSurfer takes it"
        )
        return geometry, (remark,)
    return geometry, ()


def _as_volume(array: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """The array with axes (k, j, i), native byte order, and no more precision than the file has."""
    volume = array.reshape((*array.shape, 1, 1)[:3], order="F").transpose(2, 1, 0)
    type_ = volume.dtype.newbyteorder("=")
    if type_.kind == "f" and kind.kind in "iu" and kind.itemsize <= 2:
        # Integers with a slope fit into single precision, in which ITK reads them too.
        type_ = np.dtype(np.float32)
    elif type_.kind == "f" and type_.itemsize not in (4, 8):
        type_ = np.dtype(np.float32 if type_.itemsize < 4 else np.float64)
    return np.ascontiguousarray(volume, dtype=type_)


@contextmanager
def _damage_in_words(path: Path, nibabel: ModuleType) -> Iterator[None]:
    """Turns the exceptions that nibabel raises for a damaged file into one `InputError`."""
    try:
        yield
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.freesurfer.mghformat.MGHError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.wrapstruct.WrapStructError,
        EOFError,
        KeyError,
        OSError,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> InputError:
    return InputError(
        f"the image '{path}' is damaged or ends too early",
        "Copy, download or export it again",
        code="damaged_image",
    )
