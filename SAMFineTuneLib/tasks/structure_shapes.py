"""Measures the shape of each structure on the labelled slices of a training set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMFineTuneLib.examples.image_list import evenly_spread
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.models.structure_shape import StructureShape

# A part that is smaller than this share of the structure's median area on a slice is a slip of the
# hand, or the frayed end of the structure.
_LEAST_SHARE = 0.1
# In how many pixels for each slice of distance a structure may move aside and still be one.
_LARGEST_SLANT = 2.0
# A data set of more slices tells of shapes by some of its volumes, because each slice is read from
# the disk, once for each structure.
_MOST_SLICES = 4096
_DIAGONAL = np.ones((3, 3), bool)


def structure_shapes(examples: TrainingSet) -> list[StructureShape]:
    """The shape of every structure that the slices to learn from show."""
    found = []
    slices = _of_some_volumes(examples.learnt_slices)
    for number, label in enumerate(examples.labels, start=1):
        known = [each for each in slices if each.known[number]]
        if any(number in each.classes for each in known):
            found.append(_shape(label.value, number, known))
    return found


def _of_some_volumes(slices: list[LabelledSlice]) -> list[LabelledSlice]:
    """The slices of evenly spread volumes, about as many as are measured."""
    if len(slices) <= _MOST_SLICES:
        return slices
    volumes = list(dict.fromkeys(each.volume for each in slices))
    most = max(1, len(volumes) * _MOST_SLICES // len(slices))
    kept = {volumes[position] for position in evenly_spread(len(volumes), most)}
    return [each for each in slices if each.volume in kept]


def _shape(label: int, number: int, known: Sequence[LabelledSlice]) -> StructureShape:
    shown = [each for each in known if number in each.classes]
    areas = [_areas_of_parts(each.target == number, _pixel_area(each)) for each in shown]
    usual = float(np.median([each.sum() for each in areas]))
    parts = [_counted(each, _LEAST_SHARE * usual) for each in areas]
    along = max(_pieces_along(number, slices) for slices in _by_volume(known))
    return StructureShape(
        label=label,
        slices=len(shown),
        parts=max(along, *(len(each) for each in parts)),
        smallest_part=round(min(float(each.min()) for each in parts), 2),
        usual_area=round(usual, 2),
    )


def _pixel_area(each: LabelledSlice) -> float:
    return each.spacing[0] * each.spacing[1]


def _areas_of_parts(mask: NDArray[np.bool_], pixel: float) -> NDArray[np.float64]:
    """Areas of the connected parts in mm²."""
    parts, _ = ndimage.label(mask, _DIAGONAL)
    return np.bincount(parts.ravel())[1:].astype(np.float64) * pixel


def _counted(areas: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """The areas from the least one up; where there are none, the largest."""
    return areas[areas >= min(least, areas.max())]


def _by_volume(slices: Iterable[LabelledSlice]) -> list[list[LabelledSlice]]:
    """The slices of each volume, in their order along the axis."""
    found = defaultdict(list)
    for each in slices:
        found[each.volume].append(each)
    return [sorted(own, key=lambda each: each.number) for own in found.values()]


def _pieces_along(number: int, known: Sequence[LabelledSlice]) -> int:
    """How many pieces the known slices of a volume show, one after the other along the axis."""
    pieces, before = 0, None
    for each in known:
        if number not in each.classes:
            before = None
            continue
        if before is None or not _may_be_one(before, each, number):
            pieces += 1
        before = each
    return pieces


def _may_be_one(first: LabelledSlice, second: LabelledSlice, number: int) -> bool:
    """Whether the masks of two slices lie near enough to be of one object."""
    if first.shape != second.shape:
        return True
    masks = [each.target == number for each in (first, second)]
    if (masks[0] & masks[1]).any():
        # As on most neighbouring slices; the distances of a whole slice take far longer.
        return True
    aside = ndimage.distance_transform_edt(~masks[0])[masks[1]].min()
    return bool(aside <= _LARGEST_SLANT * (second.number - first.number))
