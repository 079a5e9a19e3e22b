"""NSD and the 95th-percentile Hausdorff distance in the plane of slices, as means over slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.evaluation.known_mean import mean_of_known
from SAMFineTuneLib.evaluation.surface import hausdorff_95, surface_dice


class InPlaneDistances:
    """The distances between the outlines of one structure, slice by slice.

    Args:
        tolerance_mm: of the NSD, the distance that still counts as right.
    """

    def __init__(self, tolerance_mm: float) -> None:
        self._tolerance_mm = tolerance_mm
        self._nsd: list[float | None] = []
        self._hd95_mm: list[float | None] = []

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
        self._nsd.append(surface_dice(prediction, reference, spacing, self._tolerance_mm))
        self._hd95_mm.append(hausdorff_95(prediction, reference, spacing))

    @property
    def nsd(self) -> float | None:
        """Mean over the slices in which the prediction or the reference has the structure."""
        return mean_of_known(self._nsd)

    @property
    def hd95_mm(self) -> float | None:
        """Mean in mm over the slices in which both have the structure; None if there is none."""
        return mean_of_known(self._hd95_mm)
