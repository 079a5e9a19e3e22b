"""Shifts or scales voxel values that are too large to compute with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Double precision cannot distinguish neighbouring whole numbers beyond this.
_EXACT = 1 << 53
# With this factor the difference of any two numbers is finite.
_SMALLER = 0.25


def computable(array: NDArray[Any]) -> NDArray[Any]:
    """The array; if its values are beyond double precision, shifted or scaled to the same image.

    From whole numbers beyond 2**53 the lowest one is subtracted; floating point numbers whose range
    overflows are divided by four.
    """
    if not array.size:
        return array
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        low, high = int(array.min()), int(array.max())
        if max(abs(low), abs(high)) > _EXACT:
            # Unsigned arithmetic wraps around, so that this is right for negative numbers too.
            return array.astype(np.uint64) - np.uint64(low % (1 << 64))
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            span = array.max() - array.min()
        if not np.isfinite(span):
            return array * _SMALLER
    return array
