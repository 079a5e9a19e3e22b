"""Reads a picture as a volume of one slice, grey or in colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.pictures.decoding import decode, header

_UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


class PictureImage(NamedTuple):
    """A picture as a volume.

    Attributes:
        array: grey values, shape (1, j, i), or red, green, blue, (1, j, i, 3), in the file's own
            type of numbers.
        geometry: the first pixel in the origin, axes along L, P and S, as ITK gives it.
        remarks: what the user should know of how it was read, one sentence each.
    """

    array: NDArray[Any]
    geometry: Geometry
    remarks: tuple[str, ...]


def read_picture(path: Path) -> PictureImage:
    """The picture of a file for which `is_picture` holds.

    Pixels that transparency hides are black; all others have their colour, however transparent they
    are.

    Raises:
        InputError: it is damaged, too large, or of a kind that cannot be read.
    """
    pixels = decode(path)
    array, remarks = pixels.coloured, pixels.remarks
    if pixels.hidden is not None:
        array = array.copy()
        array[pixels.hidden] = 0
        count = np.count_nonzero(pixels.hidden)
        remarks += (f"{path.name} hides {count} of its pixels by transparency; they are black",)
    geometry = _geometry((array.shape[1], array.shape[0]), pixels.spacing)
    if pixels.spacing == (1.0, 1.0):
        remarks += (f"{path.name} does not tell the spacing of its voxels; it is taken as 1 mm",)
    return PictureImage(array[None], geometry, remarks)


def picture_geometry(path: Path) -> Geometry:
    """The geometry that `read_picture` gives, from the header.

    Raises:
        InputError: the picture is damaged or too large.
    """
    return _geometry(*header(path))


def _geometry(size: tuple[int, int], spacing: tuple[float, float]) -> Geometry:
    return Geometry((*size, 1), (*spacing, 1.0), (0.0, 0.0, 0.0), _UPRIGHT, is_picture=True)
