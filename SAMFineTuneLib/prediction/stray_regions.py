"""Connected regions of a segmentation that the structure, as the examples show it, cannot have.

A model that segments slices one by one does not see that what it found on one slice belongs to
nothing on the others. Where every example shows a structure in one piece, regions of it that are
small beside the largest one and neither touch nor continue it are errors, mostly. Where examples
show several pieces, only regions are dropped that are smaller than any piece in the examples.

The place of a region along the axis, as a share of the volume's length, is not used: it would be
comparable only if all volumes had the range of the examples'. Regions are compared with the largest
region of their own volume, which always stays, as do all that touch what the user has drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMFineTuneLib.geometry.bounding_box import bounding_box
from SAMFineTuneLib.models.structure_shape import StructureShape
from SAMFineTuneLib.prediction.known_structure import KnownStructure
from SAMFineTuneLib.slices.stack import SliceStack

# A region of a structure in one piece is an error if it is smaller than this share of the largest.
# With a half instead of a quarter the hippocampus gains 0.002 of DSC, but the examples may show one
# of two kidneys at a time, and a patient may have a small one.
_SMALL = 0.25
# A region of a structure in several pieces is one if its largest section is smaller than this share
# of the smallest piece in the examples.
_SMALLER_THAN_PIECES = 0.5
# With fewer labelled slices the examples do not say in how many pieces a structure is.
_FEWEST_SLICES = 2
# Where the largest section of the largest region is below this share of the usual one, the
# structure was hardly found, and the largest region need not be the right one.
_FOUND = 0.5
# A region continues another one behind a gap of at most so many mm or, if they are thicker, slices.
_LONGEST_GAP_MM, _LONGEST_GAP = 3.0, 1
# Regions below this share of the largest one are too small to tell what they continue.
_SPECK = 0.02
_TOUCHING = np.ones((3, 3, 3), bool)


def drop_stray_regions(
    labels: SliceStack, shapes: Iterable[StructureShape], known: Sequence[KnownStructure] = ()
) -> int:
    """Clears stray regions in a labelmap, which is changed.

    Within another structure a stray region becomes part of that one.

    Memory: for one structure at a time, one byte for each voxel and four for each voxel of the box
    around it; with drawn slices one more byte for each voxel.

    Args:
        labels: the labelmap as the slices that the model segmented.
        shapes: what the examples show; structures without a shape stay as they are.
        known: what the user has drawn; regions that touch it stay.

    Returns:
        How many regions were stray.
    """
    array = np.moveaxis(labels.array, labels.axis, 0)
    spacing = [float(each) for each in labels.geometry.spacing[::-1]]
    spacing.insert(0, spacing.pop(labels.axis))
    dropped = 0
    for shape in shapes:
        box = bounding_box(array == shape.label) if shape.slices >= _FEWEST_SLICES else None
        if box is None:
            continue
        regions, count = ndimage.label(array[box] == shape.label, _TOUCHING)
        if count < 2:
            continue
        drawn = _drawn(labels, [each for each in known if each.label == shape.label])
        kept = [] if drawn is None else np.unique(regions[drawn[box]]).tolist()
        stray = np.flatnonzero(_Regions(regions, count, spacing).stray(shape, kept)).tolist()
        _clear(array[box], regions, stray)
        dropped += len(stray)
    return dropped


def _clear(array: NDArray[np.integer], regions: NDArray[np.int32], stray: Sequence[int]) -> None:
    """Gives each stray region to what most of the voxels around it are."""
    places = ndimage.find_objects(regions)
    for region in stray:
        wider = tuple(slice(max(0, each.start - 1), each.stop + 1) for each in places[region - 1])
        own = regions[wider] == region
        around = ndimage.binary_dilation(own, _TOUCHING) & ~own
        values, counts = np.unique(array[wider][around], return_counts=True)
        array[wider][own] = values[counts.argmax()] if len(values) else 0


def _drawn(labels: SliceStack, structures: Sequence[KnownStructure]) -> NDArray[np.bool_] | None:
    """Where a structure is drawn, with the model's axis first; None if nowhere."""
    if not structures:
        return None
    found = np.zeros(labels.array.shape, bool)
    for structure in structures:
        own = SliceStack(found, labels.geometry, structure.axis)
        for number in structure.drawn:
            own[number][structure.mask(number)] = True
    return np.moveaxis(found, labels.axis, 0)


class _Regions:
    """The connected regions of one structure.

    Args:
        numbers: (slices, rows, columns) number of the region, 0 outside.
        count: how many there are.
        spacing: mm between slices, rows and columns.
    """

    def __init__(self, numbers: NDArray[np.int32], count: int, spacing: Sequence[float]) -> None:
        self._numbers, self._spacing = numbers, spacing
        # (slices, regions + 1) pixels.
        self._sections = np.stack(
            [np.bincount(each.ravel(), minlength=count + 1) for each in numbers]
        )
        self._sections[:, 0] = 0
        self._sizes = self._sections.sum(0)
        self._pixel = spacing[1] * spacing[2]

    def stray(self, shape: StructureShape, drawn: Sequence[int]) -> NDArray[np.bool_]:
        """(regions + 1,) bool, which regions are stray.

        Args:
            shape: what the examples show of the structure.
            drawn: numbers of regions that the user has drawn in part.
        """
        largest = int(self._sizes.argmax())
        sections = self._sections.max(0) * self._pixel
        stray = np.zeros(len(self._sizes), bool)
        if sections[largest] < _FOUND * shape.usual_area:
            return stray
        if shape.parts > 1:
            stray = sections < _SMALLER_THAN_PIECES * shape.smallest_part
        else:
            stray = self._apart_from(sorted({largest, *drawn} - {0}))
        stray[[0, largest, *drawn]] = False
        return stray

    def _apart_from(self, kept: list[int]) -> NDArray[np.bool_]:
        """Which regions are small and continue none of those kept, or of those that do."""
        stray = np.ones(len(self._sizes), bool)
        shares = self._sizes / self._sizes.max()
        for region in np.argsort(-shares)[: np.count_nonzero(shares >= _SPECK)].tolist():
            large = shares[region] >= _SMALL
            if large or any(self._continues(region, each) for each in kept):
                kept.append(region)
                stray[region] = False
        return stray

    def _continues(self, region: int, other: int) -> bool:
        """Whether a region lies behind an end of another one, in line with it."""
        own, its = (np.flatnonzero(self._sections[:, each]) for each in (region, other))
        if own[0] > its[-1]:
            near, end = own[0], its[-1]
        elif own[-1] < its[0]:
            near, end = own[-1], its[0]
        else:
            return False
        missing = abs(int(near) - int(end)) - 1
        if missing > max(_LONGEST_GAP, _LONGEST_GAP_MM / self._spacing[0]):
            return False
        away = (missing + 2) * self._spacing[0]
        aside = ndimage.distance_transform_edt(
            self._numbers[end] != other, sampling=self._spacing[1:]
        )
        return bool(aside[self._numbers[near] == region].min() <= away)
