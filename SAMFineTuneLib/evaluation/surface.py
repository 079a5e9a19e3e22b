"""The normalised surface distance (NSD): the share of two outlines that is within a tolerance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_surface_dice
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.bounding_box import bounding_box


def surface_dice(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing: Sequence[float],
    tolerance_mm: float,
) -> float | None:
    """NSD of two masks of the same shape (2-D or 3-D), from 0 to 1; None if both are empty.

    It is the share of the boundary voxels of both masks that lie within the tolerance of the other
    mask's boundary; 0 if only one mask is empty. Nikolov et al., "Deep learning to achieve
    clinically applicable segmentation of head and neck anatomy for radiotherapy", 2018.

    Args:
        prediction: a mask.
        reference: the true mask.
        spacing: mm between voxels along each axis of the masks.
        tolerance_mm: distance that still counts as right.
    """
    box = bounding_box(prediction | reference)
    if box is None:
        return None
    if not prediction.any() or not reference.any():
        return 0.0
    # With a margin of one voxel, a mask that reaches the edge of the image has a boundary there.
    pair = [np.pad(mask[box], 1) for mask in (prediction, reference)]
    predicted, true = (torch.from_numpy(mask)[None, None] for mask in pair)
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 warn about an argument that only their own code passes.
        warnings.simplefilter("ignore", FutureWarning)
        score = compute_surface_dice(
            predicted,
            true,
            class_thresholds=[float(tolerance_mm)],
            include_background=True,
            spacing=[float(step) for step in spacing],
        )
    return float(score)
