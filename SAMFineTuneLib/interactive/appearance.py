"""How a structure looks in the open volume: a regression on features of its accepted slices."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.interactive.networks import PROMPTED
from SAMFineTuneLib.interactive.slice_corrector import Mask, SliceCorrector
from SAMFineTuneLib.prediction.feature_regression import (
    FeatureRegression,
    FeatureSums,
    feature_maps,
)


class Appearance:
    """Distinguishes a structure from its surroundings on any slice of the open volume.

    Args:
        corrector: gives the features of the volume's slices.
        accepted: slice number -> mask (rows, columns) that is right; at least one is not empty.
    """

    def __init__(self, corrector: SliceCorrector, accepted: Mapping[int, Mask]) -> None:
        self._corrector = corrector
        self._sums = {
            number: FeatureSums.of(self._features(number), mask, corrector.fit)
            for number, mask in accepted.items()
            if mask.any()
        }
        self._learn()

    def without(self, number: int) -> Appearance:
        """The regression fitted without one accepted slice; another one must not be empty."""
        other = copy.copy(self)
        other._sums = {each: sums for each, sums in self._sums.items() if each != number}
        other._learn()
        return other

    def logits(self, number: int) -> NDArray[np.float32]:
        """Logits (rows, columns), above 0 where the slice looks like the structure."""
        return self._regression.logits(self._features(number), self._corrector.fit)

    def _features(self, number: int) -> Tensor:
        return feature_maps(
            self._corrector.worker.features(PROMPTED, number), self._corrector.fit.size
        )

    def _learn(self) -> None:
        self._regression = FeatureRegression.fitted_to(FeatureSums.total(self._sums.values()))
