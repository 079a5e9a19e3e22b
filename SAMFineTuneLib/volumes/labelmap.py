"""A labelmap: one whole number a voxel, 0 for background."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.geometry import Geometry, index_map

Colour = tuple[float, float, float]

# Nearest neighbour gives the same voxels whether or not a grid is off by this part of a voxel,
# so such grids are matched voxel by voxel. Headers written in single precision differ by less.
_ON_GRID = 0.1


@dataclass(frozen=True, eq=False)
class Labelmap:
    """A segmentation without overlaps.

    Attributes:
        array: labels, shape (k, j, i), uint8, uint16 or int32; 0 is background.
        geometry: where the voxels lie.
        names: label -> name, where the file tells.
        colours: label -> red, green, blue from 0 to 1, where the file tells.
        non_finite: how many voxels were NaN or infinite and became background.
        terminologies: label -> what it is in coded terms, as 3D Slicer writes them, where the
            file tells.
        remarks: what the user should know of how the file was read, one sentence each.
        frame_of_reference: UID of the space in which DICOM says that it lies, "" where it does not.
    """

    array: NDArray[Any]
    geometry: Geometry
    names: dict[int, str] = field(default_factory=dict)
    colours: dict[int, Colour] = field(default_factory=dict)
    non_finite: int = 0
    terminologies: dict[int, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    frame_of_reference: str = ""

    def __post_init__(self) -> None:
        if self.array.shape != tuple(self.geometry.shape):
            raise ValueError(f"array {self.array.shape} does not fit grid {self.geometry.shape}")

    @cached_property
    def labels(self) -> list[int]:
        """The labels that at least one voxel has, ascending, without background."""
        return present_labels(self.array)


def present_labels(array: NDArray[Any]) -> list[int]:
    """Labels in an array of non-negative whole numbers, ascending, without background."""
    found: set[int] = set()
    for part in array:
        # Counting is much faster than sorting, and memory stays that of one slice.
        small = part.size and part.max() < 1 << 16
        values = np.flatnonzero(np.bincount(part.ravel())) if small else np.unique(part)
        found.update(int(value) for value in values)
    return sorted(found - {0})


def smallest_label_type(largest: int) -> type[np.uint8] | type[np.uint16] | type[np.int32]:
    """The smallest integer type that holds the labels 0 to `largest`."""
    if largest < 1 << 8:
        return np.uint8
    return np.uint16 if largest < 1 << 16 else np.int32


def labelmap_onto(labelmap: Labelmap, geometry: Geometry) -> Labelmap:
    """The labelmap on another grid, nearest neighbour through physical space.

    Grids that share their voxel centres (the same grid, flipped, permuted, cropped or padded) are
    matched voxel by voxel, so nothing is lost; others are sampled at the centre of each voxel.

    Raises:
        InputError: no labelled voxel lies within the grid.
    """
    if labelmap.geometry.same_as(geometry):
        return replace(labelmap, geometry=geometry)
    array = _matched(labelmap, geometry)
    if array is None:
        array = _sampled(labelmap, geometry)
    if not array.any() and (labelmap.labels or not _boxes_meet(labelmap.geometry, geometry)):
        raise _no_overlap(labelmap.geometry, geometry)
    return replace(labelmap, array=array, geometry=geometry)


def _matched(labelmap: Labelmap, target: Geometry) -> NDArray[Any] | None:
    """Voxels copied one to one, or None where the grids do not share voxel centres."""
    exact = index_map(labelmap.geometry, target)
    whole = np.rint(exact)
    turn = np.abs(whole[:3, :3])
    if (turn.sum(axis=0) != 1).any() or (turn.sum(axis=1) != 1).any():
        return None
    if np.abs((exact - whole) @ target.corners.T).max() > _ON_GRID:
        return None
    source_axes = [int(axis) for axis in turn.argmax(axis=0)]
    source = labelmap.array.transpose(2, 1, 0).transpose(source_axes)
    array = np.zeros(target.shape, labelmap.array.dtype)
    into, taken = [], []
    for axis, source_axis in enumerate(source_axes):
        step = int(whole[source_axis, axis])
        start = int(whole[source_axis, 3])
        length = labelmap.geometry.size[source_axis]
        first, last = (-start, length - 1 - start) if step > 0 else (start - length + 1, start)
        first, last = max(first, 0), min(last, target.size[axis] - 1)
        if first > last:
            return array
        low, high = sorted((start + step * first, start + step * last))
        into.append(slice(first, last + 1))
        taken.append((slice(low, high + 1), slice(None, None, step)))
    part = source[tuple(within for within, _ in taken)][tuple(order for _, order in taken)]
    array.transpose(2, 1, 0)[tuple(into)] = part
    return array


def _sampled(labelmap: Labelmap, target: Geometry) -> NDArray[Any]:
    resample = sitk.ResampleImageFilter()
    resample.SetInterpolator(sitk.sitkNearestNeighbor)
    resample.SetSize(list(target.size))
    resample.SetOutputSpacing(list(target.spacing))
    resample.SetOutputOrigin(list(target.origin))
    resample.SetOutputDirection(list(target.direction))
    image = labelmap.geometry.place(sitk.GetImageFromArray(labelmap.array))
    return sitk.GetArrayFromImage(resample.Execute(image))


def _boxes_meet(source: Geometry, target: Geometry) -> bool:
    """Whether the boxes around both grids, in the axes of `source`, have a part in common."""
    corners = index_map(source, target) @ target.corners.T
    low, high = corners[:3].min(axis=1), corners[:3].max(axis=1)
    return bool((high >= -0.5).all() and (low <= np.array(source.size) - 0.5).all())


def _no_overlap(source: Geometry, target: Geometry) -> InputError:
    if _boxes_meet(source, target):
        what = "no labelled voxel of the segmentation lies within the volume"
    else:
        what = (
            "the segmentation lies nowhere over the volume: its centre is at "
            f"{_centre(source)} and the volume's at {_centre(target)} (LPS, mm)"
        )
    return InputError(
        what, "Give the segmentation that was drawn on this volume", code="no_overlap"
    )


def _centre(geometry: Geometry) -> str:
    middle = [(length - 1) / 2 for length in geometry.size]
    point = geometry.affine @ np.array([*middle, 1.0])
    return "(" + ", ".join(f"{value:.0f}" for value in point[:3]) + ")"
