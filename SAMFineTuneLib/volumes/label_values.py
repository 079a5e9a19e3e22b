"""Checks that voxel values of a file can be labels: whole numbers from 0, not too many of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.labelmap import present_labels, smallest_label_type

# The largest brain and whole-body atlases have a few hundred labels; images have thousands of
# different values.
_MOST_LABELS = 2000
_LARGEST_LABEL = np.iinfo(np.int32).max

# Errors of single precision are smaller than this for labels up to about 10 000.
_NOISE = 1e-3
# Whole numbers that are stored in steps are off by half a step at most; errors near 0.5 cannot be
# rounded safely.
_HALF_STEP = 0.51
_FURTHEST = 0.45
# The number of steps of 16-bit storage over the range of the values.
_STEPS = np.iinfo(np.uint16).max
# Codes of the integer types in a NIfTI header, 8 to 64 bits, with and without sign.
_NIFTI_INTEGERS = {2, 4, 8, 256, 512, 768, 1024, 1280}


def labels_of(
    path: Path, array: NDArray[Any], stored_step: float | None = None
) -> tuple[NDArray[Any], int]:
    """The array in the smallest integer type for its labels; and how many voxels were not finite.

    Values that differ from whole numbers only by rounding errors of their storage are rounded: by
    errors of single precision, and of the steps in which a program stored floating point numbers as
    integers.

    Args:
        path: the file, named in messages.
        array: voxel values, any shape; NaN and infinite values become 0 in place.
        stored_step: the difference of two values that are stored as neighbouring integers, if the
            file gives it; otherwise that of 16-bit storage is taken.

    Raises:
        InputError: the values are not whole numbers, are negative or too large, or there are too
            many different ones.
    """
    non_finite = 0
    if array.dtype.kind == "f":
        good = np.isfinite(array)
        non_finite = int(array.size - np.count_nonzero(good))
        if non_finite:
            array[~good] = 0
        array = _whole(path, array, stored_step)
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if low < 0 or high > _LARGEST_LABEL:
        raise InputError(
            f"'{path}' is not a segmentation: it holds the value "
            f"{_number(low if low < 0 else high)}",
            "Labels are whole numbers from 1, background is 0; was the image given instead of its "
            "segmentation?",
            code="not_integral",
        )
    array = array.astype(smallest_label_type(int(high)), copy=False)
    count = len(present_labels(array))
    if count > _MOST_LABELS:
        raise InputError(
            f"'{path}' is not a segmentation: it holds {count} different values",
            "Was the image given instead of its segmentation?",
            code="not_integral",
        )
    return array, non_finite


def stored_step(header: Mapping[str, str]) -> float | None:
    """The difference of two values that are stored as neighbouring integers.

    NIfTI can store floating point numbers as integers and a factor. None if the header has none.
    """
    if not header.get("datatype", "").isdecimal() or int(header["datatype"]) not in _NIFTI_INTEGERS:
        return None
    try:
        slope = abs(float(header.get("scl_slope", "")))
    except ValueError:
        return None
    return slope if np.isfinite(slope) and slope > 0 else None


def _whole(path: Path, array: NDArray[Any], stored_step: float | None) -> NDArray[Any]:
    """The values rounded, if they differ from whole numbers only by errors of their storage."""
    rounded = np.rint(array)
    off = np.abs(array - rounded)
    furthest = float(off.max()) if off.size else 0.0
    if furthest == 0:
        return array
    fits = furthest <= _NOISE or (
        furthest <= _tolerance(array, stored_step) and _one_value_a_label(array, rounded)
    )
    # If all values round to 0, this is an image with small values.
    if fits and rounded.any():
        return rounded
    example = array[np.unravel_index(int(off.argmax()), off.shape)]
    raise InputError(
        f"'{path}' is not a segmentation: it holds values such as {example}, and labels are "
        "whole numbers",
        "Give a labelmap, or threshold this image first",
        code="not_integral",
    )


def _tolerance(array: NDArray[Any], stored_step: float | None) -> float:
    step = stored_step or (float(array.max()) - float(array.min())) / _STEPS
    return min(_HALF_STEP * step, _FURTHEST)


def _one_value_a_label(array: NDArray[Any], rounded: NDArray[Any]) -> bool:
    """Whether values that are equal after rounding were equal before it.

    Storage changes a label by the same amount everywhere, while an image has values in between.
    """
    values = np.unique(array)
    return len(values) <= _MOST_LABELS and len(values) == len(np.unique(rounded))


def _number(value: Any) -> str:
    return f"{value:.0f}" if abs(float(value)) < 1e15 else f"{value:.6g}"
