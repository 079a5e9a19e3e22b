"""Fractional labelmaps, whose voxel values are the share of the voxel that a segment fills.

3D Slicer writes such files without the range of their values. Its own conversion gives values from
-108 (empty) to 108 (full); other programs give values from 0 to 1, 100, 216 or 255.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError

_USUAL_MAXIMA = (1.0, 100.0, 216.0, 255.0)
_SLICER_FULL = 108.0


def more_than_half(path: Path, layers: NDArray[Any]) -> tuple[list[NDArray[np.bool_]], int, str]:
    """Finds the voxels of which segments fill more than half.

    A voxel that is filled by exactly half does not belong to the segment, so that of two segments
    which fill it together neither gets it, rather than both.

    Args:
        path: the file, named in messages.
        layers: fractions, shape (k, j, i, layers); NaN and infinite values count as empty.

    Returns:
        A mask (k, j, i) of each layer, how many voxels were not finite, and a sentence for the
        user.

    Raises:
        InputError: values below -108.
    """
    non_finite = 0
    if layers.dtype.kind == "f":
        good = np.isfinite(layers)
        non_finite = int(layers.size - np.count_nonzero(good))
        layers = np.where(good, layers, 0)
    low, full = _range(path, layers)
    half = (low + full) / 2
    masks = [layers[..., number] > half for number in range(layers.shape[-1])]
    remark = (
        f"{path.name} is a fractional segmentation, taken to go from {low:g} to {full:g}: a voxel "
        f"counts as a structure where its value is above one half, {half:g}"
    )
    return masks, non_finite, remark


def _range(path: Path, layers: NDArray[Any]) -> tuple[float, float]:
    """The values of an empty and of a full voxel."""
    low, high = (float(layers.min()), float(layers.max())) if layers.size else (0.0, 0.0)
    if low < -_SLICER_FULL or (low < 0 and high > _SLICER_FULL):
        raise InputError(
            f"'{path}' is called a fractional segmentation, and holds values from {low:g} to "
            f"{high:g}",
            "Fractions go from 0 to 1, 100 or 255, or from -108 to 108; save it as a binary "
            "labelmap in 3D Slicer",
            code="not_integral",
        )
    # Interpolation may cause small negative values in fractions whose range begins at 0.
    if low < -_SLICER_FULL / 2:
        return -_SLICER_FULL, _SLICER_FULL
    for usual in _USUAL_MAXIMA:
        # Small structures may fill no voxel entirely, but a maximum far below means another range.
        if usual / 2 < high <= usual:
            return 0.0, usual
    return 0.0, high
