"""The smallest box around the voxels of a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def occupied_slices(mask: NDArray[Any]) -> list[NDArray[np.int64]]:
    """For each axis of a mask: ascending numbers of the slices along it that are not empty."""
    found = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found.append(np.flatnonzero(mask.any(axis=others)))
    return found


def bounding_box(mask: NDArray[Any]) -> tuple[slice, ...] | None:
    """The smallest box around the voxels of a mask, one slice an axis; None for an empty mask."""
    box = []
    for places in occupied_slices(mask):
        if not places.size:
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)
