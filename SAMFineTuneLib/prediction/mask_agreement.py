"""How alike two masks of a structure are, and whether one may replace the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST = 0.6


def agreement(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """DSC of two masks; 1 where both are empty."""
    total = int(mask.sum()) + int(other.sum())
    return 2 * int((mask & other).sum()) / total if total else 1.0


def agree(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether the agreement of two masks is at least 0.6."""
    return agreement(mask, other) >= _LEAST
