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
        for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            _cross(crossings, np.round(start, _DIGITS), np.round(end, _DIGITS))
    return np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1


def _cross(
    crossings: NDArray[np.int32], start: NDArray[np.float64], end: NDArray[np.float64]
) -> None:
    """Count in each row the first pixel whose centre lies to the right of an edge."""
    (x0, y0), (x1, y1) = sorted((start, end), key=lambda point: float(point[1]))
    first = max(int(np.ceil(y0)), 0)
    last = min(int(np.ceil(y1)), crossings.shape[0])
    if first >= last:
        return
    lines = np.arange(first, last)
    across = x0 + (lines - y0) * ((x1 - x0) / (y1 - y0))
    where = np.clip(np.ceil(np.round(across, _DIGITS)), 0, crossings.shape[1] - 1)
    crossings[lines, where.astype(int)] += 1
