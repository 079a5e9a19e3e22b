"""The distances between predicted and true outlines on the slices that are held out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from SAMFineTuneLib.evaluation.in_plane import InPlaneDistances
from SAMFineTuneLib.evaluation.surface import TOLERANCE_MM
from SAMFineTuneLib.examples.training_set import LabelledSlice


@dataclass(frozen=True)
class HeldOutDistances:
    """NSD and 95th-percentile Hausdorff distance by class number, in the plane of the slices.

    Attributes:
        nsd: from 0 to 1, the mean over the slices in which the labels or the prediction have the
            class; None if no slice has it.
        hd95_mm: mm, the mean over the slices in which both have it; None if no slice has it in
            both.
        tolerance_mm: the tolerance of the NSD.
    """

    nsd: dict[int, float | None]
    hd95_mm: dict[int, float | None]
    tolerance_mm: float


def distances_between(
    predictions: Iterable[tuple[LabelledSlice, np.ndarray]],
) -> HeldOutDistances:
    """Measures as `evaluate` does in chosen slices, with its default tolerance.

    Each slice counts at its own spacing; its rows and columns are taken to be perpendicular.

    Args:
        predictions: slices, at least one, each with the class numbers (rows, columns) that were
            predicted. A class is measured on the slices on which it is known.
    """
    measured: dict[int, InPlaneDistances] = {}
    for each, predicted in predictions:
        for number in range(1, len(each.known)):
            of_class = measured.setdefault(number, InPlaneDistances(TOLERANCE_MM))
            if each.known[number]:
                of_class.add(predicted == number, each.target == number, each.spacing)
    return HeldOutDistances(
        nsd={number: of_class.nsd for number, of_class in measured.items()},
        hd95_mm={number: of_class.hd95_mm for number, of_class in measured.items()},
        tolerance_mm=TOLERANCE_MM,
    )
