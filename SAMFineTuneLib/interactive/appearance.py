"""How a structure looks in the open volume, learnt from its accepted slices in a moment."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.interactive.networks import PROMPTED
from SAMFineTuneLib.interactive.session import CorrectionSession, Mask
from SAMFineTuneLib.prediction.feature_regression import (
    FeatureRegression,
    FeatureSums,
    feature_maps,
)


class Appearance:
    """Tells a structure from its surroundings on any slice of a session.

    Args:
        session: the open volume.
        accepted: slice number -> mask (rows, columns) that is right; one at least is not empty.
    """

    def __init__(self, session: CorrectionSession, accepted: Mapping[int, Mask]) -> None:
        self._session = session
        self._sums = {
            number: FeatureSums.of(self._features(number), mask, session.fit)
            for number, mask in accepted.items()
            if mask.any()
        }
        self._learn()

    def without(self, number: int) -> Appearance:
        """What the other accepted slices teach; one of them at least is not empty."""
        other = copy.copy(self)
        other._sums = {each: sums for each, sums in self._sums.items() if each != number}
        other._learn()
        return other

    def logits(self, number: int) -> NDArray[np.float32]:
        """(rows, columns), above 0 where the slice looks like the structure."""
        return self._regression.logits(self._features(number), self._session.fit)

    def _features(self, number: int) -> Tensor:
        return feature_maps(self._session.worker.features(PROMPTED, number), self._session.fit.size)

    def _learn(self) -> None:
        self._regression = FeatureRegression.fitted_to(FeatureSums.total(self._sums.values()))
