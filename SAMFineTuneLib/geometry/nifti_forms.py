"""The two forms by which a NIfTI header places its voxels: the qform and the sform.

The qform is a rotation with the spacings `pixdim`; the sform is any affine matrix. Each has a code,
which is 0 if the form is not to be used (NIfTI-1 and NIfTI-2 data format, "3D image orientation and
location in space").
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]

_GZIP = b"\x1f\x8b"
_MM = {1: 1000.0, 3: 0.001}
_UNIT_BITS = 0x07
# The units of the fourth axis in seconds; those of other codes, such as Hertz, are no times.
_SECONDS = {0: 1.0, 8: 1.0, 16: 1e-3, 24: 1e-6}
_TIME_UNIT_BITS = 0x38

# The smallest and the largest possible step between voxels, in mm. No image has others, and
# products of others would lose all digits.
_SMALLEST, _LARGEST = 1e-9, 1e9


class _Layout(NamedTuple):
    """The byte offset and number type of each field that is read, in one version of the format."""

    length: int
    magic: tuple[int, tuple[bytes, ...]]
    sizes: tuple[int, str]
    pixdim: tuple[int, str]
    time_step: tuple[int, str]
    units: tuple[int, str]
    codes: tuple[int, str]
    quaternion: tuple[int, str]
    rows: tuple[int, str]


_LAYOUTS = {
    348: _Layout(
        348,
        (344, (b"n+1\0", b"ni1\0")),
        (40, "8h"),
        (76, "4f"),
        (92, "f"),
        (123, "B"),
        (252, "2h"),
        (256, "6f"),
        (280, "12f"),
    ),
    540: _Layout(
        540,
        (4, (b"n+2\0", b"ni2\0")),
        (16, "8q"),
        (104, "4d"),
        (136, "d"),
        (500, "i"),
        (344, "2i"),
        (352, "6d"),
        (400, "12d"),
    ),
}


@dataclass(frozen=True)
class NiftiForms:
    """The fields of a NIfTI header that place its voxels.

    Attributes:
        version: 1 or 2.
        axes: number of axes of the image, including trailing axes of length 1.
        size: number of voxels along i, j, k.
        spacing: `pixdim` of i, j, k in mm; 0 if the header's value cannot be used.
        qfac: 1, or -1 if the third axis of the qform is reversed.
        qform_code: 0 if the qform is not to be used.
        sform_code: 0 if the sform is not to be used.
        quaternion: b, c, d of the qform's rotation.
        offset: place of the first voxel by the qform, RAS, mm.
        rows: the three rows of the sform, RAS, mm.
    """

    version: int
    axes: int
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    qfac: float
    qform_code: int
    sform_code: int
    quaternion: tuple[float, float, float]
    offset: tuple[float, float, float]
    rows: tuple[float, ...]

    @property
    def qform(self) -> Affine | None:
        """The 4 x 4 matrix from (i, j, k, 1) to RAS in mm; None if it is not to be used."""
        if self.qform_code <= 0 or not np.isfinite([*self.quaternion, *self.offset]).all():
            return None
        matrix = np.eye(4)
        matrix[:3, :3] = _rotation(*self.quaternion) * self.filled_spacing
        matrix[:3, 2] *= self.qfac
        matrix[:3, 3] = self.offset
        return _usable(matrix)

    @property
    def sform(self) -> Affine | None:
        """The 4 x 4 matrix from (i, j, k, 1) to RAS in mm; None if it is not to be used."""
        if self.sform_code <= 0 or not np.isfinite(self.rows).all():
            return None
        matrix = np.vstack([np.reshape(self.rows, (3, 4)), [0.0, 0.0, 0.0, 1.0]])
        if self.size[2] == 1 and not matrix[:3, 2].any():
            normal = np.cross(matrix[:3, 0], matrix[:3, 1])
            length = float(np.linalg.norm(normal))
            matrix[:3, 2] = normal / length * self.filled_spacing[2] if length else 0.0
        return _usable(matrix)

    @property
    def filled_spacing(self) -> tuple[float, float, float]:
        """The spacing in mm; 1 where the header has none."""
        i, j, k = (step or 1.0 for step in self.spacing)
        return i, j, k

    @property
    def thickness_told(self) -> bool:
        """Whether the header gives the distance from one slice (i, j) to the next."""
        by_sform = self.sform_code > 0 and bool(np.any(np.reshape(self.rows, (3, 4))[:, 2]))
        return by_sform or self.spacing[2] > 0


def read_forms(path: Path) -> NiftiForms | None:
    """The forms in the header of a file; None if the file has no NIfTI header.

    For a pair of files, either of the two may be named.
    """
    content, order, layout = _header(path)
    return None if layout is None else _forms(content, order, layout)


def read_time_step(path: Path) -> float:
    """The time in seconds from one frame of a 4-D file to the next; 0 if the header has none."""
    content, order, layout = _header(path)
    if layout is None:
        return 0.0
    (step,) = struct.unpack_from(order + layout.time_step[1], content, layout.time_step[0])
    (units,) = struct.unpack_from(order + layout.units[1], content, layout.units[0])
    seconds = float(step) * _SECONDS.get(int(units) & _TIME_UNIT_BITS, 0.0)
    return seconds if _SMALLEST < seconds < _LARGEST else 0.0


def header_file(path: Path) -> Path:
    """The file with the header: `path` itself, or the .hdr file beside an .img file."""
    return _beside(path, ((".img", ".hdr"), (".IMG", ".HDR")))


def voxel_file(path: Path) -> Path:
    """The file with the voxels: `path` itself, or the .img file beside an .hdr file."""
    return _beside(path, ((".hdr", ".img"), (".HDR", ".IMG")))


def _beside(path: Path, endings: tuple[tuple[str, str], ...]) -> Path:
    """The other file of a pair, if the name has the first of two endings; otherwise `path`."""
    for ending, other in endings:
        for packed in ("", ".gz"):
            if path.name.endswith(ending + packed):
                stem = path.name[: -len(ending + packed)]
                names = [path.with_name(stem + other + each) for each in (packed, "", ".gz")]
                return next((each for each in names if each.is_file()), path)
    return path


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, unpacked if it is packed by gzip, whatever its name says."""
    with path.open("rb") as stream:
        packed = stream.read(2) == _GZIP
    with gzip.open(path, "rb") if packed else path.open("rb") as opened:
        yield opened  # type: ignore[misc]


def stamp_forms(path: Path, forms: NiftiForms) -> None:
    """Write both forms, with their codes, into a NIfTI-1 file of the same grid.

    Every program then places this file where it places the file that the forms come from,
    whichever of the two forms the program uses.
    """
    stamped = path.with_name("stamped")
    with unpacked(path) as stream, _written(stamped, packed=_is_packed(path)) as target:
        header = bytearray(stream.read(348))
        _stamp(header, forms)
        target.write(header)
        while block := stream.read(1 << 22):
            target.write(block)
    stamped.replace(path)


@contextmanager
def _written(path: Path, packed: bool) -> Iterator[BinaryIO]:
    with path.open("wb") as stream:
        if not packed:
            yield stream
            return
        with gzip.GzipFile("", "wb", fileobj=stream) as target:
            yield target  # type: ignore[misc]


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP


def _stamp(header: bytearray, forms: NiftiForms) -> None:
    layout = _LAYOUTS[348]
    order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
    unit = struct.unpack_from(layout.units[1], header, layout.units[0])[0]
    struct.pack_into(layout.units[1], header, layout.units[0], (unit & ~_UNIT_BITS) | 2)
    fields = (
        (layout.pixdim, (forms.qfac, *forms.filled_spacing)),
        (layout.codes, (forms.qform_code, forms.sform_code)),
        (layout.quaternion, (*forms.quaternion, *forms.offset)),
        (layout.rows, forms.rows),
    )
    for (offset, kind), values in fields:
        struct.pack_into(order + kind, header, offset, *values)


def _header(path: Path) -> tuple[bytes, str, _Layout | None]:
    """The header of a file, its byte order and layout; None for a file without a NIfTI header."""
    try:
        with unpacked(header_file(path)) as stream:
            content = stream.read(540)
    except (OSError, EOFError, zlib.error):
        return b"", "<", None
    for order in "<>":
        length = struct.unpack_from(order + "i", content)[0] if len(content) >= 4 else 0
        layout = _LAYOUTS.get(length)
        if layout is None or len(content) < layout.length:
            continue
        at, magics = layout.magic
        if content[at : at + 4] in magics:
            return content, order, layout
    return content, "<", None


def _forms(content: bytes, order: str, layout: _Layout) -> NiftiForms:
    def numbers(field: tuple[int, str]) -> tuple[float, ...]:
        return struct.unpack_from(order + field[1], content, field[0])

    axes, *lengths = (int(number) for number in numbers(layout.sizes))
    qfac, *pixdim = numbers(layout.pixdim)
    unit = _MM.get(int(numbers(layout.units)[0]) & _UNIT_BITS, 1.0)
    qform_code, sform_code = (int(number) for number in numbers(layout.codes))
    b, c, d, *offset = numbers(layout.quaternion)
    rows = numbers(layout.rows)
    lengths = [max(length, 1) if n < axes else 1 for n, length in enumerate(lengths)]
    steps = [abs(step) * unit for step in pixdim]
    steps = [step if _SMALLEST < step < _LARGEST else 0.0 for step in steps]
    return NiftiForms(
        version=1 if layout.length == 348 else 2,
        axes=axes,
        size=(lengths[0], lengths[1], lengths[2]),
        spacing=(steps[0], steps[1], steps[2]),
        qfac=-1.0 if qfac < 0 else 1.0,
        qform_code=qform_code,
        sform_code=sform_code,
        quaternion=(b, c, d),
        offset=(offset[0] * unit, offset[1] * unit, offset[2] * unit),
        rows=tuple(number * unit for number in rows),
    )


def _usable(matrix: Affine) -> Affine | None:
    """The matrix if it gives every voxel a different place, otherwise None."""
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not ((lengths > _SMALLEST) & (lengths < _LARGEST)).all():
        return None
    return None if abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6 else matrix


def _rotation(b: float, c: float, d: float) -> Affine:
    """The rotation of the unit quaternion a + bi + cj + dk with a not negative."""
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < 1e-7:
        length = float(np.sqrt(b * b + c * c + d * d))
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = float(np.sqrt(rest))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
