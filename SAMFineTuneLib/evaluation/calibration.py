"""Whether probabilities mean what they say, and whether uncertainty tells where a result is wrong.

A prediction is calibrated if, of the voxels whose class it gives a probability of 0.8, eight of ten
have that class. The expected calibration error says how far it is from that (Naeini, Cooper and
Hauskrecht 2015; Guo, Pleiss, Sun and Weinberger 2017). In a volume most voxels are background far
from every structure, of which a model is rightly certain: over all voxels the error is small
whatever happens at the outlines. So there are two figures, over `EVERYWHERE` and over `CLAIMED`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Over all voxels, and over those where a structure has a probability of `LEAST_CLAIM` or more, or
# is in truth.
EVERYWHERE, CLAIMED = "ece", "claimed_ece"
LEAST_CLAIM = 0.01
BINS = 15


class CalibrationBins:
    """The expected calibration error of the likeliest class, voxels being added bit by bit.

    Args:
        bins: how many, of equal width; a voxel goes by the probability of its likeliest class.
    """

    def __init__(self, bins: int = BINS) -> None:
        self._voxels = np.zeros(bins)
        self._confidence = np.zeros(bins)
        self._right = np.zeros(bins)

    def add(
        self,
        probabilities: NDArray[np.floating],
        truth: NDArray[np.integer],
        counted: NDArray[np.bool_] | None = None,
    ) -> None:
        """Adds voxels.

        Args:
            probabilities: (classes, …), background first, that add up to 1.
            truth: (…) class numbers.
            counted: (…) which voxels count; None for all.
        """
        confidence = probabilities.max(0).astype(np.float64)
        right = probabilities.argmax(0) == truth
        if counted is not None:
            confidence, right = confidence[counted], right[counted]
        bins = len(self._voxels)
        # Where the edge of two bins is hit, the voxel belongs to the lower one, as in the paper.
        numbers = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1).ravel()
        self._voxels += np.bincount(numbers, minlength=bins)
        self._confidence += np.bincount(numbers, confidence.ravel(), bins)
        self._right += np.bincount(numbers, right.ravel(), bins)

    @property
    def error(self) -> float | None:
        """The mean over voxels of how far their bin's confidence is from its share that is right.

        None where no voxel was added.
        """
        voxels = self._voxels.sum()
        if not voxels:
            return None
        return float(np.abs(self._confidence - self._right).sum() / voxels)


def claimed_voxels(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Where a structure is, or has a probability of at least `LEAST_CLAIM`.

    Args:
        probabilities: (classes, …), background first.
        truth: (…) class numbers.
    """
    claimed: NDArray[np.bool_] = (probabilities[1:].max(0) >= LEAST_CLAIM) | (truth > 0)
    return claimed


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    None where there are fewer than three pairs, or all values of one side are equal.

    Raises:
        ValueError: not as many values on one side as on the other.
    """
    from scipy.stats import rankdata

    if len(first) != len(second):
        raise ValueError(f"{len(first)} values and {len(second)} are no pairs")
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def claimed_dsc(found: NDArray[np.integer], truth: NDArray[np.integer]) -> float | None:
    """DSC of one slice over the voxels of all structures together, each voxel by its class.

    Twice the voxels of which both name the same structure, over the voxels of which either names
    one, counted for each. None where neither names any.

    Args:
        found: (…) class numbers, 0 for background.
        truth: (…) class numbers.
    """
    named = np.count_nonzero(found) + np.count_nonzero(truth)
    return 2 * np.count_nonzero((found == truth) & (truth > 0)) / named if named else None
