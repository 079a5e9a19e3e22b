"""Boxes of voxels of a segmentation's lattices; values brought from one lattice to another.

All places are in the segmentation's own coordinates, before its parent transform: what is kept for
later stays true when the segmentation is moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP
from SAMFineTunePanel.scene.voxel_grid import Box, VoxelGrid, voxelOffset

# Half a voxel and a little: centres half-way between two voxels all go the same way, whatever the rounding errors.
_HALF = 0.5 + 1e-6


# Three whole numbers: i, j, k, or the lengths of an array (k, j, i).
Voxel = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class LatticeBox:
    """A box of voxels of a lattice.

    Attributes:
        start: i, j, k of its first voxel.
        shape: number of voxels (k, j, i).
        matrix: 4 × 4; (i, j, k, 1) to the segmentation's own coordinates.
    """

    start: Voxel
    shape: Voxel
    matrix: np.ndarray

    @property
    def stop(self) -> Voxel:
        """i, j, k behind its last voxel."""
        return wholeVoxel(np.add(self.start, self.shape[::-1]))

    @property
    def extent(self) -> tuple[int, int, int, int, int, int]:
        """As VTK has it: first and last i, j, k."""
        (i, j, k), (iStop, jStop, kStop) = self.start, self.stop
        return i, iStop - 1, j, jStop - 1, k, kStop - 1

    def offsetTo(self, matrix: np.ndarray) -> np.ndarray | None:
        """Whole voxels to add to i, j, k here to have those on another lattice; None when voxels differ."""
        offset = voxelOffset(VoxelGrid(wholeVoxel(np.maximum(self.stop, 1)), self.matrix), matrix)
        return None if offset is None else -offset

    def on(self, matrix: np.ndarray) -> LatticeBox:
        """The smallest box of another lattice that holds this one."""
        offset = self.offsetTo(matrix)
        if offset is not None:
            return LatticeBox(wholeVoxel(np.add(self.start, offset)), self.shape, matrix)
        edges = np.array([np.array(self.start) - 0.5, np.array(self.stop) - 0.5])
        corners = np.array([[*edges[[a, b, c], [0, 1, 2]], 1.0] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
        places = (np.linalg.inv(matrix) @ self.matrix @ corners.T)[:3]
        start = np.ceil(places.min(axis=1) - 1e-6).astype(int)
        stop = np.floor(places.max(axis=1) + 1e-6).astype(int) + 1
        shape = np.maximum(stop - start, 0)[::-1]
        return LatticeBox(wholeVoxel(start), wholeVoxel(shape), matrix)

    def around(self, mask: np.ndarray) -> tuple[LatticeBox, Box]:
        """The smallest box that holds what is set in a mask of this box, and where it lies in the mask."""
        from SAMFineTuneLib.geometry.bounding_box import bounding_box

        found = bounding_box(mask)
        if found is None:
            return LatticeBox(self.start, (0, 0, 0), self.matrix), (slice(0), slice(0), slice(0))
        k, j, i = found
        start = (self.start[0] + i.start, self.start[1] + j.start, self.start[2] + k.start)
        shape = (k.stop - k.start, j.stop - j.start, i.stop - i.start)
        return LatticeBox(start, shape, self.matrix), (k, j, i)


def wholeVoxel(numbers: np.ndarray) -> Voxel:
    """Three whole numbers out of an array."""
    first, second, third = numbers.tolist()
    return int(first), int(second), int(third)


def brought(values: np.ndarray, box: LatticeBox, to: LatticeBox, beyond: float = 0) -> np.ndarray:
    """Values (k, j, i) of one box at the voxels of another: of the nearest voxel, `beyond` where there is none.

    Not copied where all of them are there; so they are not to be changed.
    """
    offset = box.offsetTo(to.matrix)
    if offset is not None:
        start = np.add(box.start, offset)
        if (start <= to.start).all() and (start + values.shape[::-1] >= to.stop).all():
            return values[_between(to.start - start, to.stop - start)]
    result = np.full(to.shape, beyond, values.dtype)
    if values.size == 0 or result.size == 0:
        return result
    if offset is None:
        _bringNearest(values, box, to, result)
        return result
    first = np.maximum(start, to.start)
    stop = np.minimum(start + values.shape[::-1], to.stop)
    if (first < stop).all():
        result[_between(first - to.start, stop - to.start)] = values[_between(first - start, stop - start)]
    return result


def _between(first: np.ndarray, stop: np.ndarray) -> Box:
    (i, j, k), (iStop, jStop, kStop) = wholeVoxel(first), wholeVoxel(stop)
    return slice(k, kStop), slice(j, jStop), slice(i, iStop)


def _bringNearest(values: np.ndarray, box: LatticeBox, to: LatticeBox, result: np.ndarray) -> None:
    own = np.linalg.inv(box.matrix) @ to.matrix
    iFirst, jFirst, kFirst = to.start
    _depth, rows, columns = to.shape
    along = (
        np.add.outer((np.arange(rows) + jFirst) * own[:3, 1][:, None], np.zeros(columns))
        + (np.arange(columns) + iFirst) * own[:3, 0][:, None, None]
    )
    limits = np.array(values.shape[::-1])[:, None, None]
    # Plane by plane, so that a large box does not need places of all its voxels at once.
    for number, plane in enumerate(result):
        places = along + (own[:3, 2] * (kFirst + number) + own[:3, 3] - box.start)[:, None, None]
        indices = np.floor(places + _HALF).astype(int)
        inside = ((indices >= 0) & (indices < limits)).all(axis=0)
        i, j, k = indices[:, inside]
        plane[inside] = values[k, j, i]


def labelsOf(image: slicer.vtkOrientedImageData) -> tuple[np.ndarray, LatticeBox]:
    """The numbers (k, j, i) of a labelmap, not copied, and where they lie; an empty array when there are none."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    extent = image.GetExtent()
    shape = tuple(max(0, extent[2 * axis + 1] - extent[2 * axis] + 1) for axis in (2, 1, 0))
    scalars = image.GetPointData().GetScalars()
    if scalars is None or 0 in shape:
        shape = (0, 0, 0)
    labels = np.zeros(shape, np.uint8) if 0 in shape else vtk_to_numpy(scalars).reshape(shape)
    return labels, LatticeBox((extent[0], extent[2], extent[4]), shape, slicer.util.arrayFromVTKMatrix(matrix))


def segmentIn(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str, box: LatticeBox) -> np.ndarray:
    """Which voxels of a box a segment holds: (k, j, i), bool; none where it has no labelmap."""
    segment = segmentationNode.GetSegmentation().GetSegment(segmentID)
    image = segment.GetRepresentation(BINARY_LABELMAP)
    if image is None:
        return np.zeros(box.shape, bool)
    labels, own = labelsOf(image)
    return brought(labels, own, box) == segment.GetLabelValue()


def labelmapLattice(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str) -> np.ndarray | None:
    """The lattice of a segment's labelmap; None while it has none, or one without voxels."""
    image = segmentationNode.GetSegmentation().GetSegment(segmentID).GetRepresentation(BINARY_LABELMAP)
    if image is None:
        return None
    labels, box = labelsOf(image)
    return box.matrix if labels.size else None


def latticeOf(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str) -> np.ndarray | None:
    """The lattice on which a segment is drawn: that of its voxels; while it has none, that which Slicer
    would give it, the segmentation's reference geometry. None without one."""
    own = labelmapLattice(segmentationNode, segmentID)
    if own is not None:
        return own
    segmentation = segmentationNode.GetSegmentation()
    converter = slicer.vtkSegmentationConverter
    geometry = segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    reference = slicer.vtkOrientedImageData()
    if not geometry or not converter.DeserializeImageGeometry(geometry, reference, False):
        return None
    matrix = vtk.vtkMatrix4x4()
    reference.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)
