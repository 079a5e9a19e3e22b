"""Distances between the outlines of two masks: NSD and the 95th-percentile Hausdorff distance."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.geometry.bounding_box import bounding_box

# The distance between outlines that counts as right where the user names no other.
TOLERANCE_MM = 2.0


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
    predicted, true = _tensors(prediction, reference, box)
    with _monai_quiet():
        score = compute_surface_dice(
            predicted,
            true,
            class_thresholds=[float(tolerance_mm)],
            include_background=True,
            spacing=[float(step) for step in spacing],
        )
    return float(score)


def hausdorff_95(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing: Sequence[float]
) -> float | None:
    """The 95th-percentile Hausdorff distance of two masks in mm; None if one of them is empty.

    It is the larger of two distances: that within which 95 % of the boundary voxels of one mask lie
    from the boundary of the other, and the same the other way round.

    Args:
        prediction: a mask, 2-D or 3-D.
        reference: the true mask, of the same shape.
        spacing: mm between voxels along each axis of the masks.
    """
    box = bounding_box(prediction | reference)
    if box is None or not prediction.any() or not reference.any():
        return None
    predicted, true = _tensors(prediction, reference, box)
    with _monai_quiet():
        distance = compute_hausdorff_distance(
            predicted,
            true,
            include_background=True,
            percentile=95,
            spacing=[float(step) for step in spacing],
        )
    return float(distance)


@contextmanager
def _monai_quiet() -> Iterator[None]:
    """Hides what MONAI 1.5 and 1.6 warn of: an argument that only their own code passes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _tensors(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], box: tuple[slice, ...]
) -> tuple[Tensor, Tensor]:
    """The part of both masks in a box, (1, 1, ...).

    With a margin of one voxel, a mask that reaches the edge of the image has a boundary there.
    """
    one, other = (np.pad(mask[box], 1) for mask in (prediction, reference))
    return torch.from_numpy(one)[None, None], torch.from_numpy(other)[None, None]
