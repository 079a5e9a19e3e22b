"""Finds the axis along which labels were drawn slice by slice, for the shell and for Slicer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Spacings whose ratio is below this count as equal when an axis is chosen.
_SAME_SPACING = 1.05

# The share of labelled slices among those from the first to the last labelled one: up to the first
# value labels count as drawn on single slices, above the second as drawn on all.
_SPARSE, _DENSE = 0.5, 0.9

# Structures drawn on all slices may have gaps as well: a smaller difference of shares is ignored.
_SAME_SHARE = 0.05


def widest_axis(spacing: Sequence[float]) -> int | None:
    """The axis with the largest spacing, or None if two or three axes share it."""
    lengths = np.asarray(spacing, dtype=float)
    widest = np.flatnonzero(lengths * _SAME_SPACING >= lengths.max())
    return int(widest[0]) if len(widest) == 1 else None


def only_slice_axis(size: Sequence[int]) -> int | None:
    """The axis across a picture: the only one with a single voxel; None for other volumes.

    Across any other axis a picture falls into lines.
    """
    single = [axis for axis, voxels in enumerate(size) if voxels == 1]
    return single[0] if len(single) == 1 else None


def stacking_axis(size: Sequence[int], spacing: Sequence[float]) -> int | None:
    """The axis along which a volume's slices lie, by its grid alone.

    That of its only slice, else the one with the largest spacing; None if several share it.

    Args:
        size: voxels along each axis.
        spacing: mm between voxels along each axis.
    """
    only = only_slice_axis(size)
    return widest_axis(spacing) if only is None else only


def labelled_share(occupied: NDArray[np.integer]) -> float:
    """The share of labelled slices from the first to the last labelled one; 1 if none is labelled.

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

    In a volume of a single slice, that slice was drawn on. In a volume with thick slices, these
    were drawn on, unless the labels lie on single slices along another axis and not along this one.
    If spacings are equal, the axis is the one along which labels skip the most slices; if they skip
    none, the slices are axial.

    Args:
        occupied: for each axis, ascending numbers of the slices that hold a label.
        size: voxels along each axis.
        spacing: mm between voxels along each axis.
        axial: the axis along which axial slices are stacked.

    Returns:
        The axis, as an index into these sequences.
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
    """Another axis along which labels lie on single slices, while they do not along `axis`.

    None if there is no such axis: then the labels look as if they were drawn along `axis`.

    Args:
        occupied: for each axis, ascending numbers of the slices that hold a label.
        axis: an index into `occupied`.
    """
    shares = [labelled_share(each) for each in occupied]
    sparsest = int(np.argmin(shares))
    return sparsest if shares[sparsest] <= _SPARSE and shares[axis] > _DENSE else None
