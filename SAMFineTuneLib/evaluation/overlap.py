"""Dice similarity coefficient (DSC): how much of two masks is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice
from numpy.typing import NDArray


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float | None:
    """DSC of two masks of one shape, from 0 to 1; None where both are empty.

    Dice, "Measures of the amount of ecologic association between species", 1945.
    """
    box = bounding_box(prediction | reference)
    if box is None:
        return None
    pair = [torch.from_numpy(np.ascontiguousarray(mask[box])) for mask in (prediction, reference)]
    predicted, true = (mask[None, None].float() for mask in pair)
    return float(compute_dice(predicted, true, include_background=True, ignore_empty=False))


def bounding_box(mask: NDArray[Any]) -> tuple[slice, ...] | None:
    """The smallest box around the voxels of a mask, None where it has none."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        if not places.size:
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)
