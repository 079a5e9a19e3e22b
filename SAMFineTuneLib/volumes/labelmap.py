"""A labelmap: one whole number for each voxel, 0 for background."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import ON_GRID, Geometry, index_map
from SAMFineTuneLib.volumes.image_grid import resampled
from SAMFineTuneLib.volumes.pictures.fitting import fits_by_pixels

Colour = tuple[float, float, float]

# Axes count as parallel if the cosine of the angle between them is above this (half a degree).
_PARALLEL = 0.99996

_OTHER_PLACE = (
    "the segmentation fits its volume by another of the places that their headers give; it is "
    "laid over the volume voxel by voxel"
)


@dataclass(frozen=True, eq=False)
class Labelmap:
    """A segmentation without overlaps.

    Attributes:
        array: labels, shape (k, j, i), uint8, uint16 or int32; 0 is background.
        geometry: where the voxels lie.
        names: label -> name, for labels that the file names.
        colours: label -> red, green, blue from 0 to 1, for labels with a colour in the file.
        non_finite: how many voxels were NaN or infinite and became background.
        terminologies: label -> 3D Slicer's terminology entry (coded terms), for labels that have
            one in the file.
        remarks: what the user should know of how the file was read, one sentence each.
        frame_of_reference: UID of the DICOM frame of reference, "" if the file gives none.
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
        # Counting is much faster than sorting, and slice by slice it needs little memory.
        small = part.size and part.max() < 1 << 16
        values = np.flatnonzero(np.bincount(part.ravel())) if small else np.unique(part)
        found.update(int(value) for value in values)
    return sorted(found - {0})


def smallest_label_type(largest: int) -> type[np.uint8] | type[np.uint16] | type[np.int32]:
    """The smallest integer type that holds the labels 0 to `largest`."""
    if largest < 1 << 8:
        return np.uint8
    return np.uint16 if largest < 1 << 16 else np.int32


def labelmap_onto(
    labelmap: Labelmap, geometry: Geometry, *, empty_anywhere: bool = False
) -> Labelmap:
    """The labelmap resampled onto another grid by nearest neighbour in physical space.

    Grids that share their voxel centres (the same grid, flipped, permuted, cropped or padded) are
    matched voxel by voxel, so that nothing is lost; otherwise the labelmap is sampled at the centre
    of each voxel. If a file places its voxels on two grids, the one that matches is taken. A single
    slice that lies on a slice of the grid labels that slice, however thick it is. Where one of both
    is a picture, which has no place, they are matched pixel by pixel.

    Args:
        labelmap: the labels.
        geometry: the grid to bring them onto.
        empty_anywhere: a labelmap without a label becomes an empty one, wherever it lies. It says
            that nothing is there, as one that the user has drawn does.

    Raises:
        InputError: no labelled voxel lies within the grid, or one of both is a picture and their
            sizes differ.
    """
    if empty_anywhere and not labelmap.labels:
        nothing = np.zeros(geometry.shape, labelmap.array.dtype)
        return replace(labelmap, array=nothing, geometry=geometry)
    if fits_by_pixels(labelmap.geometry, geometry):
        return replace(labelmap, geometry=geometry)
    pairs = [
        (source, target)
        for target in (geometry, *geometry.others)
        for source in (labelmap.geometry, *labelmap.geometry.others)
    ]
    same = next((pair for pair in pairs if pair[0].same_as(pair[1])), None)
    if same is not None:
        chosen, array = same, labelmap.array
    else:
        chosen, array = _matched_by_any(labelmap, pairs)
    if not array.any() and (labelmap.labels or not _boxes_meet(*chosen)):
        raise _no_overlap(*chosen)
    remarks = labelmap.remarks if chosen == pairs[0] else (*labelmap.remarks, _OTHER_PLACE)
    return replace(labelmap, array=array, geometry=geometry, remarks=remarks)


def _matched_by_any(
    labelmap: Labelmap, pairs: list[tuple[Geometry, Geometry]]
) -> tuple[tuple[Geometry, Geometry], NDArray[Any]]:
    """The first pair of grids that share voxel centres, or else the first one; and the labels."""
    for source, target in pairs:
        moved = replace(labelmap, geometry=_as_thick_as(source, target))
        array = _matched(moved, target)
        if array is not None and (array.any() or len(pairs) == 1):
            return (source, target), array
    return pairs[0], resampled(labelmap.array, labelmap.geometry, pairs[0][1])


def _as_thick_as(source: Geometry, target: Geometry) -> Geometry:
    """The grid of a single slice with the slice distance of the target grid along its normal."""
    axes = np.reshape(source.direction, (3, 3)).T
    others = np.reshape(target.direction, (3, 3)).T
    spacing = list(source.spacing)
    for axis in range(3):
        cosines = np.abs(others @ axes[axis])
        if source.size[axis] == 1 and cosines.max() > _PARALLEL:
            spacing[axis] = target.spacing[int(cosines.argmax())]
    return replace(source, spacing=(spacing[0], spacing[1], spacing[2]))


def _matched(labelmap: Labelmap, target: Geometry) -> NDArray[Any] | None:
    """The labels copied voxel by voxel; None if the grids do not share voxel centres."""
    exact = index_map(labelmap.geometry, target)
    whole = np.rint(exact)
    turn = np.abs(whole[:3, :3])
    if (turn.sum(axis=0) != 1).any() or (turn.sum(axis=1) != 1).any():
        return None
    if np.abs((exact - whole) @ target.corners.T).max() > ON_GRID:
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


def _boxes_meet(source: Geometry, target: Geometry) -> bool:
    """Whether the boxes around both grids overlap, along the axes of `source`."""
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
