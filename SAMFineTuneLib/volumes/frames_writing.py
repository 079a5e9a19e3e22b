"""Writes images with an axis of time: frames are collected in a file, so that memory holds one."""

from __future__ import annotations

import gzip
import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import quote

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.geometry.nifti_forms import read_forms
from SAMFineTuneLib.image_endings import image_ending
from SAMFineTuneLib.volumes.decoded_once import decoded_once
from SAMFineTuneLib.volumes.format_limits import TOLERANCE, require_holdable
from SAMFineTuneLib.volumes.frames import TimeAxis
from SAMFineTuneLib.volumes.image_file import read_geometry, read_image, read_time_axis
from SAMFineTuneLib.volumes.image_grid import placed
from SAMFineTuneLib.volumes.labelmap import Labelmap, smallest_label_type
from SAMFineTuneLib.volumes.quiet import itk_quiet
from SAMFineTuneLib.volumes.segment_header import segment_fields
from SAMFineTuneLib.volumes.writing import (
    failed,
    move,
    place_beside,
    refused,
    same_where_finite,
    write_volume,
)

# The formats that have an axis of time.
FRAME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")

# Byte offsets in a NIfTI-1 header, and the code of seconds as the unit of the fourth axis.
_DIM, _PIXDIM, _VOX_OFFSET, _UNITS = 40, 76, 108, 123
_SECONDS, _TIME_UNIT_BITS = 8, 0x38
_LONGEST_AXIS = (1 << 15) - 1
_NRRD_TYPES = {
    "u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16",
    "u4": "uint32", "i4": "int32", "f4": "float", "f8": "double",
}  # fmt: skip
_LEVEL = 6

Shape = tuple[int, int, int]


def require_frames_holdable(path: str | os.PathLike[str], geometry: Geometry, frames: int) -> None:
    """Check that the format of a file has an axis of time, and can hold the grid of its frames.

    Raises:
        InputError: it cannot; the remedy names formats that can.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".seg.nrrd"):
        reason = "the fourth axis of a .seg.nrrd file is that of overlapping segments"
    elif name.endswith(".dcm"):
        reason = "a DICOM segmentation has no axis of time"
    elif not name.endswith(FRAME_ENDINGS):
        reason = "its format has no axis of time"
    elif name.endswith((".nii", ".nii.gz")) and frames > _LONGEST_AXIS:
        reason = f"NIfTI has at most {_LONGEST_AXIS} frames"
    else:
        require_holdable(path, geometry)
        return
    raise InputError(
        f"'{path.name}' cannot hold {frames} frames: {reason}",
        "End the file's name in .nii.gz, .nii, .seq.nrrd, .nrrd, .mha or .mhd",
        code="frames_not_held",
    )


class FrameStore:
    """The frames of an image in a file of plain numbers; those that are not put there are 0."""

    def __init__(
        self, file: Path, path: Path, kind: type[np.generic], frames: int, shape: Shape
    ) -> None:
        self._file, self._path, self._kind = file, path, np.dtype(kind)
        self._frames, self._shape = frames, shape
        try:
            with file.open("wb") as stream:
                # Systems that know sparse files need no space for frames that stay empty.
                stream.truncate(self.nbytes)
        except OSError as error:
            raise refused(path, error) from error

    def __len__(self) -> int:
        return self._frames

    @property
    def nbytes(self) -> int:
        """Size of all frames."""
        return self._frames * self._of_frame

    @property
    def kind(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return self._kind

    @property
    def _of_frame(self) -> int:
        return math.prod(self._shape) * self._kind.itemsize

    def put(self, number: int, array: NDArray[Any]) -> None:
        """Stores a frame (k, j, i).

        Raises:
            InputError: no space is left.
        """
        if array.shape != self._shape:
            raise ValueError(f"array {array.shape} does not fit frames of {self._shape}")
        try:
            with self._file.open("r+b") as stream:
                stream.seek(number * self._of_frame)
                stream.write(np.ascontiguousarray(array, self._kind).tobytes())
        except OSError as error:
            raise refused(self._path, error) from error

    def frame(self, number: int) -> NDArray[Any]:
        """A frame (k, j, i)."""
        count = math.prod(self._shape)
        start = number * self._of_frame
        return np.fromfile(self._file, self._kind, count, offset=start).reshape(self._shape)

    def slice_of_all(self, number: int) -> NDArray[Any]:
        """A slice (frames, j, i) of every frame."""
        rows, columns = self._shape[1:]
        skipped = number * rows * columns * self._kind.itemsize
        return np.stack(
            [
                np.fromfile(
                    self._file,
                    self._kind,
                    rows * columns,
                    offset=frame * self._of_frame + skipped,
                ).reshape(rows, columns)
                for frame in range(self._frames)
            ]
        )


def write_frames(
    path: str | os.PathLike[str],
    labelmaps: Sequence[Labelmap],
    time: TimeAxis | None = None,
    *,
    compress: bool = True,
) -> None:
    """Write segmentations of one grid as the frames of one file.

    Args:
        path: the file; its ending is one of `FRAME_ENDINGS`.
        labelmaps: one for each frame, at least one. NRRD keeps the names, colours and terms of the
            first one.
        time: the axis of time, such as that of the image (`read_time`); None where it is unknown.
        compress: as for `write_volume`.

    Raises:
        InputError: as `written_frames`; or there are no segmentations, or they lie on different
            grids.
    """
    path = Path(path)
    if not labelmaps:
        raise InputError(
            f"there are no frames to write into '{path.name}'",
            "Give a segmentation for each frame",
            code="no_frames",
        )
    first = labelmaps[0]
    kind = smallest_label_type(max(int(each.array.max(initial=0)) for each in labelmaps))
    axis = replace(time or TimeAxis(1), frames=len(labelmaps))
    with written_frames(path, first.geometry, axis, kind, first, compress) as store:
        for number, labelmap in enumerate(labelmaps):
            if not labelmap.geometry.same_as(first.geometry):
                raise InputError(
                    f"frame {number} of '{path.name}' would lie elsewhere than frame 0",
                    "Give segmentations of one grid",
                    code="uneven_frames",
                )
            store.put(number, labelmap.array)


@contextmanager
def written_frames(
    path: Path,
    geometry: Geometry,
    time: TimeAxis,
    kind: type[np.generic],
    labels: Labelmap | None = None,
    compress: bool = True,
) -> Iterator[FrameStore]:
    """A store for the frames, which are written to one file when the block ends.

    The store is on the same disk. If the block raises an exception, no file appears, and an older
    one remains.

    Args:
        path: the file; its ending is one of `FRAME_ENDINGS`. NRRD is written as 3D Slicer writes
            sequences, with the names of segments.
        geometry: the grid of each frame.
        time: the axis of time, such as that of the image that was segmented.
        kind: type of the numbers.
        labels: a labelmap whose names, colours and terms hold for all frames; None where values
            are no labels.
        compress: whether to compress; ignored for .nii and .nii.gz, whose ending decides.

    Raises:
        InputError: the format cannot hold the frames, the file cannot be written, or no space is
            left.
    """
    require_frames_holdable(path, geometry, time.frames)
    ending = image_ending(path)
    assert ending is not None
    with place_beside(path) as folder:
        written = folder / "file" / f"frames{ending}"
        frames = FrameStore(folder / "frames.raw", path, kind, time.frames, geometry.shape)
        yield frames
        try:
            written.parent.mkdir()
            _encode(written, frames, geometry, time, labels, compress)
            _check(path, written, frames, geometry)
        except OSError as error:
            raise refused(path, error) from error
        except RuntimeError as error:
            raise failed(path, frames.nbytes) from error
        _renamed(written, path)
        move(written.parent / path.name, path)


def _renamed(written: Path, path: Path) -> None:
    """Gives what was written the name that the user chose; .mhd names its other file."""
    if written.suffix == ".mhd":
        text = written.read_text(encoding="utf-8")
        stem = path.name[: -len(".mhd")]
        for other in (".zraw", ".raw"):
            file = written.with_suffix(other)
            if file.exists():
                file.rename(file.with_name(stem + other))
                text = text.replace(file.name, stem + other)
        written.write_text(text, encoding="utf-8")
    written.rename(written.with_name(path.name))


def _encode(
    written: Path,
    frames: FrameStore,
    geometry: Geometry,
    time: TimeAxis,
    labels: Labelmap | None,
    compress: bool,
) -> None:
    if written.name.endswith((".nii", ".nii.gz")):
        _encode_nifti(written, frames, geometry, time)
    elif written.suffix == ".nrrd":
        _encode_nrrd(written, frames, geometry, time, labels, compress)
    else:
        _encode_with_itk(written, frames, geometry, time, compress)


def _encode_nifti(written: Path, frames: FrameStore, geometry: Geometry, time: TimeAxis) -> None:
    """The header of one frame, which places the voxels, with a fourth axis; and all frames."""
    first = written.with_name("first.nii")
    write_volume(first, frames.frame(0), geometry)
    start = first.read_bytes()[: 1 << 10]
    first.unlink()
    order: Literal["<", ">"] = "<" if struct.unpack_from("<i", start)[0] == 348 else ">"
    header = bytearray(start[: int(struct.unpack_from(order + "f", start, _VOX_OFFSET)[0])])
    i, j, k = geometry.size
    struct.pack_into(order + "8h", header, _DIM, 4, i, j, k, time.frames, 1, 1, 1)
    struct.pack_into(order + "f", header, _PIXDIM + 16, time.step or 1.0)
    header[_UNITS] = (header[_UNITS] & ~_TIME_UNIT_BITS) | (_SECONDS if time.step else 0)
    with _opened(written, packed=written.suffix == ".gz") as stream:
        stream.write(header)
        for number in range(len(frames)):
            stream.write(frames.frame(number).astype(frames.kind.newbyteorder(order)).tobytes())


def _encode_nrrd(
    written: Path,
    frames: FrameStore,
    geometry: Geometry,
    time: TimeAxis,
    labels: Labelmap | None,
    compress: bool,
) -> None:
    """A sequence with its axis before those of space, which every version of 3D Slicer reads."""
    vectors = [_vector(axis) for axis in geometry.affine[:3, :3].T]
    name = time.name or ("time" if time.step else "frame")
    unit = time.unit or ("s" if time.step else "")
    lines = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[frames.kind.str[1:]]}",
        "dimension: 4",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, (time.frames, *geometry.size))),
        "space directions: none " + " ".join(vectors),
        "kinds: list domain domain domain",
        f'labels: "{_plain(name)}" "" "" ""',
        f'units: "{_plain(unit)}" "" "" ""',
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: {_vector(geometry.origin)}",
        *(f"{key}:={_escaped(value)}" for key, value in _fields(time, labels).items()),
    ]
    with written.open("wb") as stream:
        stream.write(("\n".join(lines) + "\n\n").encode())
    little = frames.kind.newbyteorder("<")
    with _opened(written, packed=compress, mode="ab") as stream:
        for number in range(geometry.shape[0]):
            stream.write(np.moveaxis(frames.slice_of_all(number), 0, -1).astype(little).tobytes())


def _encode_with_itk(
    written: Path, frames: FrameStore, geometry: Geometry, time: TimeAxis, compress: bool
) -> None:
    images = [
        placed(sitk.GetImageFromArray(frames.frame(number)), geometry)
        for number in range(len(frames))
    ]
    with itk_quiet():
        joined = sitk.JoinSeries(images, 0.0, time.step or 1.0)
        sitk.WriteImage(joined, str(written), useCompression=compress)


def _fields(time: TimeAxis, labels: Labelmap | None) -> dict[str, str]:
    """The fields by which 3D Slicer reads a sequence, and those of the segments."""
    values = time.values
    if len(values) != time.frames:
        values = tuple(f"{number * (time.step or 1.0):.6g}" for number in range(time.frames))
    node = "LabelMapVolume" if labels is not None else "ScalarVolume"
    fields = {
        "DataNodeClassName": f"vtkMRML{node}Node",
        "axis 0 index type": "numeric" if all(map(_is_number, values)) else "text",
        "axis 0 index values": " ".join(quote(each, safe="+%") for each in values),
    }
    return fields | (_segments(labels) if labels is not None else {})


def _segments(labels: Labelmap) -> dict[str, str]:
    """The fields of segments, without those of layers and extents, which a sequence lacks."""
    return {
        key: value
        for key, value in segment_fields(labels).items()
        if key.startswith("Segment") and not key.endswith(("_Layer", "_Extent"))
        if not key.startswith("Segmentation_")
    }


def _check(path: Path, written: Path, frames: FrameStore, geometry: Geometry) -> None:
    """Reads the file again.

    Raises:
        InputError: values, number of frames or places are others than were meant.
    """
    with decoded_once():
        if read_time_axis(written).frames != len(frames):
            raise failed(path, frames.nbytes)
        for number in range(len(frames)):
            found = read_image(written, frame=number).array
            if not same_where_finite(found, frames.frame(number)):
                raise failed(path, frames.nbytes)
    grid = read_geometry(written)
    meant, told = [geometry, *geometry.others], [grid, *grid.others]
    if read_forms(written) is None:
        meant, told = [geometry], [grid]
    if len(meant) != len(told) or not all(
        one.same_as(other, TOLERANCE) for one, other in zip(meant, told, strict=True)
    ):
        raise InputError(
            f"'{path.name}' could not be written so that its voxels lie at their places",
            "Name a file that ends in .seq.nrrd",
            code="geometry_not_held",
        )


@contextmanager
def _opened(path: Path, packed: bool, mode: str = "wb") -> Iterator[BinaryIO]:
    with path.open(mode) as stream:
        if not packed:
            yield stream  # type: ignore[misc]
            return
        with gzip.GzipFile("", "wb", _LEVEL, fileobj=stream, mtime=0) as target:
            yield target  # type: ignore[misc]


def _vector(numbers: Any) -> str:
    return "(" + ",".join(f"{float(each):.17g}" for each in numbers) + ")"


def _plain(text: str) -> str:
    """A label of an axis, which stands between quotes."""
    return " ".join(text.replace('"', "'").replace("\\", "/").split())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
