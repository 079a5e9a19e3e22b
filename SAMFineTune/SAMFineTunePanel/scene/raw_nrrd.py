"""NRRD files without compression, written and read in small pieces so that Slicer never waits for them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from SAMFineTunePanel.scene.voxel_grid import VoxelGrid

_PIECE_BYTES = 2 << 20
_TYPES = {
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
    "int64": "int64",
    "uint64": "uint64",
    "float32": "float",
    "float64": "double",
}
_NUMPY_TYPES = {
    "signed char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "unsigned char": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "unsigned short": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "unsigned int": "u4",
    "uint32": "u4",
    "float": "f4",
    "double": "f8",
    "long long": "i8",
    "int64": "i8",
    "unsigned long long": "u8",
    "uint64": "u8",
}
_COLOUR_KINDS = {3: "RGB-color", 4: "RGBA-color"}
# Slicer's world is right-anterior-superior, that of the files left-posterior-superior.
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write(path: Path, array: np.ndarray, grid: VoxelGrid, fields: dict[str, str] | None = None) -> Iterator[None]:
    """Write an array (k, j, i), or colours (k, j, i, 3 or 4), on a grid; yields between pieces of a few megabytes.

    Raises:
        OSError: the file cannot be written.
        ValueError: numbers of a type that NRRD does not have.
    """
    array = np.ascontiguousarray(array)
    if array.dtype.name not in _TYPES:
        raise ValueError(f"{array.dtype} cannot be written as NRRD")
    voxels = array.reshape(-1).data.cast("B")
    with path.open("wb") as file:
        file.write(_header(array, grid, fields or {}))
        for start in range(0, len(voxels), _PIECE_BYTES):
            file.write(voxels[start : start + _PIECE_BYTES])
            yield


def _header(array: np.ndarray, grid: VoxelGrid, fields: dict[str, str]) -> bytes:
    matrix = _RAS_TO_LPS @ grid.ijkToRas

    def vector(values: np.ndarray) -> str:
        return "(" + ",".join(repr(float(value)) for value in values) + ")"

    colours = [str(values) for values in array.shape[3:]]
    kinds = [_COLOUR_KINDS[values] for values in array.shape[3:]]
    lines = [
        "NRRD0004",
        f"type: {_TYPES[array.dtype.name]}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        "sizes: " + " ".join([*colours, *map(str, grid.size)]),
        "space directions: "
        + " ".join(["none" for _each in colours] + [vector(matrix[:3, axis]) for axis in range(3)]),
        "kinds: " + " ".join([*kinds, "domain domain domain"]),
        f"endian: {sys.byteorder}",
        "encoding: raw",
        "space origin: " + vector(matrix[:3, 3]),
        *(f"{name}:={_oneLine(value)}" for name, value in fields.items()),
    ]
    return ("\n".join(lines) + "\n\n").encode()


def _oneLine(value: str) -> str:
    return " ".join(value.split())


def read(path: Path) -> np.ndarray:
    """The voxels (k, j, i) of a file with raw encoding, mapped from the disk and not yet read.

    They can be changed; the file stays as it is.

    Raises:
        OSError: no such file.
        ValueError: not such a file, or cut off.
    """
    with path.open("rb") as file:
        if not file.readline().startswith(b"NRRD"):
            raise ValueError(f"{path.name} is not an NRRD file")
        fields = {}
        for line in file:
            text = line.decode("utf-8", "replace").strip()
            if not text:
                break
            name, separator, value = text.partition(": ")
            if separator and not text.startswith("#"):
                fields[name] = value
        offset = file.tell()
    if fields.get("encoding") != "raw" or fields.get("type") not in _NUMPY_TYPES or fields.get("dimension") != "3":
        raise ValueError(f"{path.name} is not a volume in raw NRRD")
    order = ">" if fields.get("endian") == "big" else "<"
    size = [int(number) for number in fields.get("sizes", "").split()]
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"{path.name} is not a volume in raw NRRD")
    if path.stat().st_size < offset + math.prod(size) * np.dtype(_NUMPY_TYPES[fields["type"]]).itemsize:
        # Memory that looks into the part that is not there would end Slicer.
        raise ValueError(f"{path.name} is cut off")
    return np.memmap(path, order + _NUMPY_TYPES[fields["type"]], "c", offset, tuple(size[::-1]))
