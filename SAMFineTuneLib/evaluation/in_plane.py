"""NSD and the 95th-percentile Hausdorff distance in the plane of slices, as means over slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.evaluation.surface import hausdorff_95, surface_dice


class InPlaneDistances:
    """The distances between the outlines of one structure, slice by slice.

    Args:
        tolerance_mm: of the NSD, the distance that still counts as right.
    """

    def __init__(self, tolerance_mm: float) -> None:
        self._tolerance_mm = tolerance_mm
        self._nsd: list[float] = []
        self._hd95_mm: list[float] = []

    def add(
        self,
        prediction: NDArray[np.bool_],
        reference: NDArray[np.bool_],
        spacing: Sequence[float],
    ) -> None:
        """Measures one slice.

        Args:
            prediction: (rows, columns), on axes that are perpendicular to each other.
            reference: the true mask, of the same shape.
            spacing: mm between rows and between columns.
        """
        near = surface_dice(prediction, reference, spacing, self._tolerance_mm)
        distance = hausdorff_95(prediction, reference, spacing)
        self._nsd += [] if near is None else [near]
        self._hd95_mm += [] if distance is None else [distance]

    @property
    def nsd(self) -> float | None:
        """Mean over the slices in which the prediction or the reference has the structure."""
        return _mean(self._nsd)

    @property
    def hd95_mm(self) -> float | None:
        """Mean in mm over the slices in which both have the structure; None if there is none."""
        return _mean(self._hd95_mm)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
