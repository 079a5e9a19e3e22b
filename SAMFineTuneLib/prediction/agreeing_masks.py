"""Whether two masks of a structure on a slice are alike enough for one to replace the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The least DSC of the two.
_LEAST = 0.6


def agree(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether the DSC of two masks is at least 0.6, or both are empty."""
    total = int(mask.sum()) + int(other.sum())
    return not total or 2 * int((mask & other).sum()) >= _LEAST * total
