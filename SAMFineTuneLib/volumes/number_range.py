"""Voxels in numbers that can be computed with, where the file's own are too large for that."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Beyond, neighbouring whole numbers are one and the same in double precision.
_EXACT = 1 << 53
# Keeps the difference of any two numbers finite.
_SMALLER = 0.25


def computable(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or one that looks the same where its numbers are beyond double precision.

    Whole numbers beyond 2**53 are counted from the lowest one on; floating point numbers whose
    range overflows become a quarter.
    """
    if not array.size:
        return array
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        low, high = int(array.min()), int(array.max())
        if max(abs(low), abs(high)) > _EXACT:
            # Unsigned numbers wrap around, so that this is right for negative ones, too.
            return array.astype(np.uint64) - np.uint64(low % (1 << 64))
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            span = array.max() - array.min()
        if not np.isfinite(span):
            return array * _SMALLER
    return array
