"""Which pixels of a grid lie inside polygons."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Corners are rounded to this part of a pixel, so that one that is meant to lie on a pixel's centre
# lies there whatever was lost in its digits.
_DIGITS = 4


def filled(polygons: Iterable[NDArray[np.float64]], rows: int, columns: int) -> NDArray[np.bool_]:
    """The pixels whose centre lies inside an odd number of the polygons: holes stay empty.

    The centre of pixel (row, column) is the point (column, row). A centre on the line itself
    belongs to the polygon on whose right or lower side it lies, so that neighbours with a common
    line share no pixel.

    Args:
        polygons: corners of each, shape (corners, 2): column and row; the last is joined to the
            first. Parts outside the grid are cut off.
        rows: height of the grid.
        columns: width of the grid.

    Returns:
        Bool, shape (rows, columns).
    """
    # One more column takes the crossings to the right of the grid.
    crossings = np.zeros((rows, columns + 1), np.int32)
    for polygon in polygons:
        _cross(crossings, np.round(polygon, _DIGITS))
    return np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1


def _cross(crossings: NDArray[np.int32], polygon: NDArray[np.float64]) -> None:
    """Count for each edge, in each row, the first pixel whose centre lies to its right."""
    rows, columns = crossings.shape
    following = np.roll(polygon, -1, axis=0)
    down = (polygon[:, 1] <= following[:, 1])[:, np.newaxis]
    (x0, y0), (x1, y1) = np.where(down, polygon, following).T, np.where(down, following, polygon).T
    # An edge crosses the rows from its upper end on, without the one on which its lower end lies.
    first = np.maximum(np.ceil(y0), 0).astype(int)
    counts = np.maximum(np.minimum(np.ceil(y1), rows).astype(int) - first, 0)
    edge = np.repeat(np.arange(len(polygon)), counts)
    lines = np.arange(len(edge)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    across = np.ceil(np.round(x0[edge] + (lines - y0[edge]) * slope, _DIGITS))
    np.add.at(crossings, (lines, np.clip(across, 0, columns - 1).astype(int)), 1)
