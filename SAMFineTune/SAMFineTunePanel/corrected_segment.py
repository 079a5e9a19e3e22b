"""The segment that is corrected, on the slices of its volume: places, masks, and writing them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.example_slices import ORIENTATIONS, segmentName
from SAMFineTunePanel.node_kinds import requireSegmentation, requireVolume
from SAMFineTunePanel.segment_edit import Box, SegmentEdit, writeMask
from SAMFineTunePanel.segment_voxels import BINARY_LABELMAP
from SAMFineTunePanel.segmentation_lattice import LatticeBox, labelsOf, segmentIn
from SAMFineTunePanel.voxel_grid import VoxelGrid, gridOf, worldTransform

# Of a box, in voxels: a little more than the worker asks for, which would refuse all prompts beside it too.
_LEAST_SIDE = 1.001


@dataclass(frozen=True, eq=False)
class CorrectedSegment:
    """A segment, its volume, and the voxel axis along which slices are corrected.

    Masks are bool (rows, columns): the axes of the array (k, j, i) that are left. Places are voxel indices
    (i, j, k), not rounded; RAS is the world's.

    Attributes:
        volume: the image.
        segmentation: holds the segment.
        segmentID: of the segment.
        axis: 0 for i, 1 for j, 2 for k.
    """

    volume: slicer.vtkMRMLScalarVolumeNode
    segmentation: slicer.vtkMRMLSegmentationNode
    segmentID: str
    axis: int = 2

    def require(self) -> None:
        """Refuse what cannot be corrected.

        Raises:
            ValueError: in words.
        """
        requireVolume(self.volume)
        requireSegmentation(self.segmentation)
        problem = self.problem()
        if problem:
            raise ValueError(problem)
        segmentation = self.segmentation.GetSegmentation()
        source = segmentation.GetSourceRepresentationName()
        if segmentation.GetNumberOfSegments() and source and source != BINARY_LABELMAP:
            raise ValueError(
                _(
                    "{name} is not made of voxels but of surfaces. Choose another segmentation, or make binary "
                    "labelmaps its source (module Segmentations)."
                ).format(name=self.segmentation.GetName())
            )

    def problem(self) -> str:
        """What was removed from the scene or cannot be followed any more, in words; "" when all is well."""
        for node in (self.volume, self.segmentation):
            if not slicer.mrmlScene.IsNodePresent(node):
                return _("{name} was removed from the scene.").format(name=node.GetName())
        if self.segmentation.GetSegmentation().GetSegment(self.segmentID) is None:
            return _("The segment was removed from {name}.").format(name=self.segmentation.GetName())
        try:
            gridOf(self.volume)
            worldTransform(self.segmentation)
        except ValueError as error:
            return str(error)
        return ""

    @property
    def name(self) -> str:
        """What the user calls the segment."""
        return segmentName(self.segmentation, self.segmentID)

    @property
    def grid(self) -> VoxelGrid:
        """Where the volume's voxels lie at present."""
        return gridOf(self.volume)

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.grid.size[self.axis]

    @property
    def orientation(self) -> str:
        """What the slices are called at present; turning the volume may change it."""
        grid = self.grid
        return next(each for each in ORIENTATIONS if grid.voxelAxis(each) == self.axis)

    def placeOf(self, ras: Iterable[float]) -> np.ndarray:
        """The place of a point of the world.

        Raises:
            ValueError: it is no point, or lies outside the volume.
        """
        point = np.asarray(list(ras), dtype=float)
        if point.shape != (3,) or not np.isfinite(point).all():
            raise ValueError(_("A point has three coordinates: right, anterior, superior in millimetres."))
        grid = self.grid
        place = (np.linalg.inv(grid.ijkToRas) @ [*point, 1.0])[:3]
        if (place < -0.5).any() or (place >= np.array(grid.size) - 0.5).any():
            raise ValueError(
                _("The point lies outside of volume {name}. Click inside of it.").format(name=self.volume.GetName())
            )
        return place

    def numberOf(self, place: np.ndarray) -> int:
        """The slice of a place."""
        return int(np.floor(place[self.axis] + 0.5))

    def onSlice(self, place: np.ndarray, number: int) -> tuple[float, float, float]:
        """The nearest place on a slice."""
        moved = [float(each) for each in place]
        moved[self.axis] = float(number)
        return tuple(moved)

    def rasOf(self, place: Iterable[float]) -> np.ndarray:
        """The point of the world at a place."""
        return (self.grid.ijkToRas @ [*place, 1.0])[:3]

    def requireArea(self, first: np.ndarray, second: np.ndarray) -> None:
        """Refuse two corners of a box without area.

        Raises:
            ValueError: in words.
        """
        sides = np.delete(np.abs(np.subtract(first, second)), self.axis)
        if sides.min() < _LEAST_SIDE:
            raise ValueError(_("The box has no area: its corners lie in one row or column of voxels. Draw it anew."))

    def mask(self, number: int) -> np.ndarray:
        """What the segment holds on a slice."""
        box = self._box(number, number + 1)
        start = tuple(each.start for each in reversed(box))
        shape = tuple(each.stop - each.start for each in box)
        matrix = np.linalg.inv(worldTransform(self.segmentation)) @ self.grid.ijkToRas
        held = segmentIn(self.segmentation, self.segmentID, LatticeBox(start, shape, matrix))
        return np.take(held, 0, axis=2 - self.axis)

    def write(self, masks: Mapping[int, np.ndarray]) -> list[SegmentEdit]:
        """Make the segment equal these masks of slices where the Segment Editor allows it.

        All or nothing.

        Raises:
            ValueError: as `writeMask`.
        """
        edits: list[SegmentEdit] = []
        try:
            for numbers in _runs(sorted(masks)):
                box, inside = self._reach(numbers, masks)
                stacked = np.stack([masks[number][inside] for number in numbers], axis=2 - self.axis)
                edits.append(writeMask(self.volume, self.segmentation, self.segmentID, box, stacked))
        except ValueError:
            for edit in reversed(edits):
                edit.undo()
            raise
        return edits

    def _reach(self, numbers: list[int], masks: Mapping[int, np.ndarray]) -> tuple[Box, tuple[slice, slice]]:
        """The box in which neighbouring slices can change, and where it lies in their masks (rows, columns).

        Most of a slice neither is set nor was; what nobody looks at takes no time.
        """
        box = list(self._box(numbers[0], numbers[-1] + 1))
        held = self._extent()
        inside = []
        for side, axis in enumerate(each for each in range(3) if each != 2 - self.axis):
            isSet = np.logical_or.reduce([masks[number].any(axis=1 - side) for number in numbers])
            places = [*np.flatnonzero(isSet)]
            if held is not None:
                places += [held[axis].start, held[axis].stop - 1]
            first, last = np.clip([min(places, default=0), max(places, default=0)], 0, len(isSet) - 1)
            box[axis] = slice(int(first), int(last) + 1)
            inside.append(box[axis])
        return tuple(box), tuple(inside)

    def _extent(self) -> Box | None:
        """Where the segment's labelmap lies on the volume's grid, (k, j, i), and beyond; None while it has none."""
        image = self.segmentation.GetSegmentation().GetSegment(self.segmentID).GetRepresentation(BINARY_LABELMAP)
        if image is None:
            return None
        labels, own = labelsOf(image)
        if labels.size == 0:
            return None
        matrix = np.linalg.inv(worldTransform(self.segmentation)) @ self.grid.ijkToRas
        there = own.on(matrix)
        # Voxels of another lattice reach half a voxel farther than their centres.
        return tuple(slice(low - 1, high + 1) for low, high in zip(there.start[::-1], there.stop[::-1], strict=True))

    def _box(self, first: int, stop: int) -> Box:
        """All of the slices from `first` to before `stop`: (k, j, i)."""
        box = [slice(0, size) for size in self.grid.shape]
        box[2 - self.axis] = slice(first, stop)
        return tuple(box)


def _runs(numbers: list[int]) -> list[list[int]]:
    """Sorted numbers, cut where one is left out."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
