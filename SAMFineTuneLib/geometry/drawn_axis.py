"""Along which axis labels were drawn, slice by slice: one rule for the shell and for Slicer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Spacings that differ by less are the same for the choice of an axis.
_SAME_SPACING = 1.05

# Shares of labelled slices, from the first to the last, that tell single slices from whole ones.
_SPARSE, _DENSE = 0.5, 0.9

# Whole structures have gaps as well: shares that differ by less tell nothing.
_SAME_SHARE = 0.05


def widest_axis(spacing: Sequence[float]) -> int | None:
    """The axis with the largest spacing, or None where two or three share it."""
    lengths = np.asarray(spacing, dtype=float)
    widest = np.flatnonzero(lengths * _SAME_SPACING >= lengths.max())
    return int(widest[0]) if len(widest) == 1 else None


def labelled_share(occupied: NDArray[np.integer]) -> float:
    """Labelled slices among those from the first to the last labelled one; 1 where there is none.

    Args:
        occupied: ascending numbers of the slices that hold a label.
    """
    if not len(occupied):
        return 1.0
    return len(occupied) / float(occupied[-1] - occupied[0] + 1)


def drawn_axis(
    occupied: Sequence[NDArray[np.integer]],
    size: Sequence[int],
    spacing: Sequence[float],
    axial: int,
) -> int:
    """The axis along which labels were most likely drawn.

    A volume of a single slice has been drawn on that slice. A volume with thick slices has been
    drawn on them, unless its labels lie on single slices along another axis alone. Where
    spacings are equal, the axis is the one along which the labels skip the most slices, and
    where they skip none, the slices are axial.

    Args:
        occupied: for each axis, ascending numbers of the slices that hold a label.
        size: voxels along each axis.
        spacing: mm between voxels along each axis.
        axial: the axis along which axial slices are stacked.

    Returns:
        Index into these sequences.
    """
    if 1 in size:
        return list(size).index(1)
    widest = widest_axis(spacing)
    if widest is not None:
        sparser = sparser_axis(occupied, widest)
        return widest if sparser is None else sparser
    shares = [labelled_share(each) for each in occupied]
    sparsest = int(np.argmin(shares))
    return sparsest if shares[sparsest] < shares[axial] - _SAME_SHARE else axial


def sparser_axis(occupied: Sequence[NDArray[np.integer]], axis: int) -> int | None:
    """Another axis along which labels lie on single slices, as they do not along `axis`.

    None where there is none, so where the labels look as if they were drawn along `axis`.

    Args:
        occupied: for each axis, ascending numbers of the slices that hold a label.
        axis: index into it.
    """
    shares = [labelled_share(each) for each in occupied]
    sparsest = int(np.argmin(shares))
    return sparsest if shares[sparsest] <= _SPARSE and shares[axis] > _DENSE else None
