"""Colour images: their red, green and blue, and what counts as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError

# How bright red, green and blue appear, ITU-R Recommendation BT.601.
_BRIGHTNESS = (0.299, 0.587, 0.114)


def colours_or_grey(array: NDArray[Any], name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The colours of an image whose voxels have several values, or its grey levels.

    An image whose red, green and blue are equal everywhere is grey. Where an opacity hides voxels,
    they become black.

    Args:
        array: (k, j, i, values): red, green, blue, or these with an opacity.
        name: of the file, for messages.

    Returns:
        (k, j, i, 3), or (k, j, i) for a grey image; and remarks for the user, one sentence each.

    Raises:
        InputError: another number of values a voxel.
    """
    values = array.shape[-1]
    if values not in (3, 4):
        raise InputError(
            f"'{name}' has {values} values a voxel, which are neither grey levels nor colours",
            "Save each of its images in a file of its own, and name these together as the images "
            "of one case",
            code="not_scalar",
        )
    colours, remarks = (array, ()) if values == 3 else _opaque(array, name)
    grey = colours[..., 0]
    if np.array_equal(grey, colours[..., 1]) and np.array_equal(grey, colours[..., 2]):
        return np.ascontiguousarray(grey), remarks
    return colours, remarks


def brightness(colours: NDArray[Any]) -> NDArray[np.float32]:
    """Grey levels (k, j, i) of colours (k, j, i, 3), as bright as the colours appear."""
    grey: NDArray[np.float32] = colours.astype(np.float32) @ np.array(_BRIGHTNESS, np.float32)
    return grey


def _opaque(array: NDArray[Any], name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    colours, opacity = array[..., :3], array[..., 3]
    hidden = (opacity == 0) & colours.any(axis=-1)
    if not hidden.any():
        return np.ascontiguousarray(colours), ()
    remark = f"{np.count_nonzero(hidden)} voxels of {name} are transparent; they are taken as black"
    return np.where(opacity[..., None] == 0, 0, colours).astype(array.dtype), (remark,)
