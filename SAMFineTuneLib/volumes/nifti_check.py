"""Finds faults that ITK's NIfTI reader hides: files that end too early, voxels that are not finite.

The reader fills missing voxels with zeros, and replaces NaN and infinite values by zeros.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.nifti_forms import header_file, read_forms, voxel_file

# Length of a NIfTI-1 header, which is also its first field.
_HEADER = 348

_GZIP = b"\x1f\x8b"
_FLOATING = {16: "f4", 64: "f8"}
_BLOCK = 1 << 22


class DamagedFileError(Exception):
    """The file ends too early, or its checksum is wrong."""


def non_finite_voxels(path: Path) -> NDArray[np.int64]:
    """Flat indices of the voxels of a NIfTI file that are NaN or infinite, first axis fastest.

    The array is empty for files of other formats.

    Raises:
        DamagedFileError: the file does not hold all the voxels that its header announces.
    """
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            return _scan(_blocks(path))
        if name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
            return _scan_pair(header_file(path), voxel_file(path))
        return np.zeros(0, np.int64)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedFileError(str(path)) from error


def _blocks(path: Path) -> Iterator[bytes]:
    """The unpacked content in blocks; reading to the end checks the checksum of a .gz."""
    with path.open("rb") as stream:
        # Some programs write unpacked NIfTI into files named .gz, and the other way round.
        packed = stream.read(2) == _GZIP
    with gzip.open(path, "rb") if packed else path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block


def _scan_pair(header: Path, voxels: Path) -> NDArray[np.int64]:
    """The same for a pair of files, one with the header and one with the voxels."""
    if header == voxels or read_forms(header) is None:
        return np.zeros(0, np.int64)
    start = b"".join(_blocks(header))
    return _scan(chain([start], _blocks(voxels)), before=len(start))


def _scan(blocks: Iterator[bytes], before: int = 0) -> NDArray[np.int64]:
    content = next(blocks, b"")
    order = _byte_order(content)
    if order is None:
        return np.zeros(0, np.int64)
    axes, *sizes = struct.unpack_from(order + "8h", content, 40)
    kind, bits = struct.unpack_from(order + "2h", content, 70)
    offset = max(int(struct.unpack_from(order + "f", content, 108)[0]), 0) + before
    needed = math.prod(max(size, 1) for size in sizes[: max(axes, 0)]) * bits // 8
    number = np.dtype(order + _FLOATING[kind]) if kind in _FLOATING else None
    found = [np.zeros(0, np.int64)]
    seen = 0
    for part in _whole_voxels(chain([content], blocks), offset, needed, max(bits // 8, 1)):
        if number is not None:
            bad = np.flatnonzero(~np.isfinite(np.frombuffer(part, number)))
            found.append(bad + seen // number.itemsize)
        seen += len(part)
    if seen < needed:
        raise DamagedFileError
    return np.concatenate(found)


def _whole_voxels(blocks: Iterable[bytes], offset: int, needed: int, voxel: int) -> Iterator[bytes]:
    """The bytes of the voxels, without cutting a voxel; all blocks are read, for the checksum."""
    rest = b""
    for block in blocks:
        skipped = min(offset, len(block))
        offset -= skipped
        rest += block[skipped:][: needed - len(rest)]
        usable = len(rest) // voxel * voxel
        yield rest[:usable]
        needed -= usable
        rest = rest[usable:]


def _byte_order(content: bytes) -> str | None:
    """The byte order of a NIfTI-1 header; None if this is no such header."""
    if len(content) < _HEADER:
        return None
    for order in "<>":
        if struct.unpack_from(order + "i", content)[0] == _HEADER:
            return order
    return None
