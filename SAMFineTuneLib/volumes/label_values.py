"""Voxel values of a file as labels: whole numbers from 0 on, and not too many different ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.labelmap import present_labels, smallest_label_type

# The largest brain and whole-body atlases have a few hundred labels; an image has thousands.
_MOST_LABELS = 2000
_LARGEST_LABEL = np.iinfo(np.int32).max

# Arithmetic in single precision moves labels by less than this, up to about 10 000.
_NOISE = 1e-3
# Whole numbers that are stored in steps lie within half a step of their value, and rounding is
# unsafe near one half.
_HALF_STEP = 0.51
_FURTHEST = 0.45
# The steps of 16-bit storage over the range of the values.
_STEPS = np.iinfo(np.uint16).max
# Codes of the integer types in a NIfTI header, 8 to 64 bits, with and without sign.
_NIFTI_INTEGERS = {2, 4, 8, 256, 512, 768, 1024, 1280}


def labels_of(
    path: Path, array: NDArray[Any], stored_step: float | None = None
) -> tuple[NDArray[Any], int]:
    """The array in the smallest integer type for its labels; how many voxels were not finite.

    Values that are whole numbers but for the rounding of their storage are rounded: single
    precision, and the steps in which a program has stored floating point numbers as integers.

    Args:
        path: named in messages.
        array: voxel values, any shape; NaN and infinite ones become 0 in place.
        stored_step: by how much the values grow from one stored integer to the next, where the
            file says so; else that of 16-bit storage is taken.

    Raises:
        InputError: fractions, negative numbers, too large ones, or too many different ones.
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


def stored_step(header: Mapping[str, str]) -> float | None:
    """By how much values grow from one stored integer to the next; None where no field tells it.

    NIfTI keeps floating point numbers as integers and a factor.
    """
    if not header.get("datatype", "").isdecimal() or int(header["datatype"]) not in _NIFTI_INTEGERS:
        return None
    try:
        slope = abs(float(header.get("scl_slope", "")))
    except ValueError:
        return None
    return slope if np.isfinite(slope) and slope > 0 else None


def _whole(path: Path, array: NDArray[Any], stored_step: float | None) -> NDArray[Any]:
    """The values rounded, where they are whole numbers but for the rounding of their storage."""
    rounded = np.rint(array)
    off = np.abs(array - rounded)
    furthest = float(off.max()) if off.size else 0.0
    if furthest == 0:
        return array
    fits = furthest <= _NOISE or (
        furthest <= _tolerance(array, stored_step) and _one_value_a_label(array, rounded)
    )
    # An image in small units is near 0 everywhere.
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
    """Whether equal whole numbers were equal before they were rounded.

    Storage moves a label by the same amount everywhere; an image has values in between.
    """
    values = np.unique(array)
    return len(values) <= _MOST_LABELS and len(values) == len(np.unique(rounded))


def _number(value: Any) -> str:
    return f"{value:.0f}" if abs(float(value)) < 1e15 else f"{value:.6g}"
