"""The voxels of segments on the grid of a volume, wherever the segmentation itself lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from SAMFineTunePanel.scene.frames import nodeForSlicer
from SAMFineTunePanel.scene.voxel_grid import VoxelGrid, gridOf, voxelOffset, worldTransform

BINARY_LABELMAP = "Binary labelmap"
_SLAB_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class SegmentVoxels:
    """A piece of a labelmap that holds one segment.

    Attributes:
        labels: (k, j, i), a piece of the volume's grid.
        start: i, j, k of the piece's first voxel on the grid.
        value: of the segment's voxels in `labels`.
    """

    labels: np.ndarray
    start: tuple[int, int, int]
    value: int

    def slabs(self) -> Iterator[tuple[tuple[slice, slice, slice], np.ndarray]]:
        """The segment in slabs of a few megabytes: where each lies on the grid (k, j, i), and its mask."""
        i, j, k = self.start
        depth, rows, columns = self.labels.shape
        thickness = max(1, _SLAB_BYTES // max(1, rows * columns * self.labels.itemsize))
        for first in range(0, depth, thickness):
            labels = self.labels[first : first + thickness]
            box = slice(k + first, k + first + len(labels)), slice(j, j + rows), slice(i, i + columns)
            yield box, labels == self.value


def hasVoxelsOnly(segmentationNode: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether a segmentation has no surfaces, or whatever else is to follow its voxels."""
    names: list[str] = []
    segmentationNode.GetSegmentation().GetContainedRepresentationNames(names)
    return names == [BINARY_LABELMAP]


def segmentVoxels(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentID: str,
    volumeNode: slicer.vtkMRMLScalarVolumeNode,
) -> SegmentVoxels:
    """The voxels of a segment on a volume's grid; what lies beyond the volume is left out.

    Where the segmentation's voxels are voxels of the volume they are taken as they are; else they are
    resampled by Slicer (nearest voxel).

    Raises:
        ValueError: as `gridOf` and `worldTransform`; no such segment; Slicer cannot resample it.
    """
    segment = segmentationNode.GetSegmentation().GetSegment(segmentID)
    if segment is None:
        raise ValueError(
            _("Segmentation {name} has lost a segment that was chosen.").format(name=segmentationNode.GetName())
        )
    grid = gridOf(volumeNode)
    toWorld = worldTransform(segmentationNode)
    image = segment.GetRepresentation(BINARY_LABELMAP)
    if image is not None:
        labels, start = _ownVoxels(image)
        if labels.size == 0:
            return SegmentVoxels(np.zeros((0, 0, 0), np.uint8), (0, 0, 0), 1)
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        offset = voxelOffset(grid, toWorld @ slicer.util.arrayFromVTKMatrix(matrix))
        if offset is not None:
            return _clipped(labels, np.asarray(start) + offset, grid, segment.GetLabelValue())
    return _resampled(segmentationNode, segmentID, volumeNode)


def _ownVoxels(image: slicer.vtkOrientedImageData) -> tuple[np.ndarray, tuple[int, int, int]]:
    extent = image.GetExtent()
    shape = tuple(max(0, extent[2 * axis + 1] - extent[2 * axis] + 1) for axis in (2, 1, 0))
    scalars = image.GetPointData().GetScalars()
    if scalars is None or 0 in shape:
        return np.zeros((0, 0, 0), np.uint8), (0, 0, 0)
    return vtk_to_numpy(scalars).reshape(shape), (extent[0], extent[2], extent[4])


def _clipped(labels: np.ndarray, start: np.ndarray, grid: VoxelGrid, value: int) -> SegmentVoxels:
    stop = np.minimum(start + labels.shape[::-1], grid.size)
    first = np.maximum(start, 0)
    if (stop <= first).any():
        return SegmentVoxels(np.zeros((0, 0, 0), np.uint8), (0, 0, 0), 1)
    (i, j, k), (iStop, jStop, kStop) = first - start, stop - start
    piece = labels[k:kStop, j:jStop, i:iStop]
    return SegmentVoxels(piece, (int(first[0]), int(first[1]), int(first[2])), int(value))


def _resampled(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentID: str,
    volumeNode: slicer.vtkMRMLScalarVolumeNode,
) -> SegmentVoxels:
    """Not by slicer.util: that makes nodes in the scene, and who follows the scene would ask again, without end."""
    image = slicer.vtkOrientedImageData()
    if segmentationNode.GetSegmentation().CreateRepresentation(BINARY_LABELMAP):
        segmentIDs = vtk.vtkStringArray()
        segmentIDs.InsertNextValue(segmentID)
        slicer.vtkSlicerSegmentationsModuleLogic.GenerateMergedLabelmapInReferenceGeometry(
            nodeForSlicer(segmentationNode),
            nodeForSlicer(volumeNode),
            segmentIDs,
            slicer.vtkSegmentation.EXTENT_UNION_OF_EFFECTIVE_SEGMENTS,
            image,
        )
    labels, _start = _ownVoxels(image)
    if labels.shape != gridOf(volumeNode).shape:
        raise ValueError(
            _(
                "Segmentation {name} could not be brought onto volume {volume}. Check in the module Segmentations "
                "that its segments have voxels or closed surfaces, and in Transforms that it lies over the volume."
            ).format(name=segmentationNode.GetName(), volume=volumeNode.GetName())
        )
    return SegmentVoxels(labels, (0, 0, 0), 1)


def segmentName(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str) -> str:
    """What the user calls a segment."""
    return segmentationNode.GetSegmentation().GetSegment(segmentID).GetName().strip()
