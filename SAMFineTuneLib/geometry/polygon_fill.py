"""Finds the pixels of a grid that lie inside polygons."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Corners are rounded to this many decimals of a pixel, so that a corner that is meant to lie on a
# pixel's centre lies there exactly, in spite of rounding errors.
_DIGITS = 4


def filled(polygons: Iterable[NDArray[np.float64]], rows: int, columns: int) -> NDArray[np.bool_]:
    """The pixels whose centre lies inside an odd number of the polygons, so that holes stay empty.

    The centre of pixel (row, column) is the point (column, row). A centre that lies exactly on an
    edge belongs to the polygon to the right of that edge or below it, so that neighbours with a
    common edge share no pixel.

    Args:
        polygons: corners of each polygon, shape (corners, 2): column and row. The last corner is
            joined to the first. Parts outside the grid are cut off.
        rows: height of the grid.
        columns: width of the grid.

    Returns:
        Bool, shape (rows, columns).
    """
    # The additional column counts the crossings to the right of the grid.
    crossings = np.zeros((rows, columns + 1), np.int32)
    for polygon in polygons:
        _cross(crossings, np.round(polygon, _DIGITS))
    return np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1


def _cross(crossings: NDArray[np.int32], polygon: NDArray[np.float64]) -> None:
    """Add 1, for each edge and each row that it crosses, at the first pixel to the edge's right."""
    rows, columns = crossings.shape
    following = np.roll(polygon, -1, axis=0)
    down = (polygon[:, 1] <= following[:, 1])[:, np.newaxis]
    (x0, y0), (x1, y1) = np.where(down, polygon, following).T, np.where(down, following, polygon).T
    # An edge crosses the rows from its upper end on, except a row on which its lower end lies.
    first = np.maximum(np.ceil(y0), 0).astype(int)
    counts = np.maximum(np.minimum(np.ceil(y1), rows).astype(int) - first, 0)
    edge = np.repeat(np.arange(len(polygon)), counts)
    lines = np.arange(len(edge)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    across = np.ceil(np.round(x0[edge] + (lines - y0[edge]) * slope, _DIGITS))
    np.add.at(crossings, (lines, np.clip(across, 0, columns - 1).astype(int)), 1)
