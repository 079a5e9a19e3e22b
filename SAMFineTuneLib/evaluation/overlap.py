"""The overlap of two masks: Dice similarity coefficient (DSC) and intersection over union (IoU)."""

from __future__ import annotations

import numpy as np
import torch
from monai.metrics import compute_dice
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.bounding_box import bounding_box


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float | None:
    """DSC of two masks of the same shape, from 0 to 1; None if both are empty.

    Dice, "Measures of the amount of ecologic association between species", 1945.
    """
    box = bounding_box(prediction | reference)
    if box is None:
        return None
    pair = [torch.from_numpy(np.ascontiguousarray(mask[box])) for mask in (prediction, reference)]
    predicted, true = (mask[None, None].float() for mask in pair)
    return float(compute_dice(predicted, true, include_background=True, ignore_empty=False))


def iou_of(dsc: float | None) -> float | None:
    """The intersection over union (Jaccard index) of two masks whose DSC is known."""
    return None if dsc is None else dsc / (2 - dsc)
