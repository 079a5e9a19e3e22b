"""Voxel values of a file as labels: whole numbers from 0 on, and not too many different ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.labelmap import present_labels, smallest_label_type

# The largest brain and whole-body atlases have a few hundred labels; an image has thousands.
_MOST_LABELS = 2000
_LARGEST_LABEL = np.iinfo(np.int32).max


def labels_of(path: Path, array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The array in the smallest integer type for its labels; how many voxels were not finite."""
    non_finite = 0
    if array.dtype.kind == "f":
        good = np.isfinite(array)
        non_finite = int(array.size - np.count_nonzero(good))
        if non_finite:
            array[~good] = 0
        fractions = array != np.rint(array)
        if fractions.any():
            raise InputError(
                f"'{path}' is not a segmentation: it holds values such as "
                f"{array[fractions][0]:.4g}, and labels are whole numbers",
                "Give a labelmap, or threshold this image first",
                code="not_integral",
            )
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if low < 0 or high > _LARGEST_LABEL:
        raise InputError(
            f"'{path}' is not a segmentation: it holds the value {low if low < 0 else high:.0f}",
            "Labels are whole numbers from 1, background is 0; was the image given in place of "
            "its segmentation?",
            code="not_integral",
        )
    array = array.astype(smallest_label_type(int(high)), copy=False)
    count = len(present_labels(array))
    if count > _MOST_LABELS:
        raise InputError(
            f"'{path}' is not a segmentation: it holds {count} different values",
            "Was the image given in place of its segmentation?",
            code="not_integral",
        )
    return array, non_finite
