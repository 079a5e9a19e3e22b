"""Giving voxels to a segment and taking them away: in place where that is all there is to it, else as Slicer does.

Slicer looks through all labels of a layer after each change, which takes the longer the larger the segment is;
in place only the changed voxels are touched.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP, hasVoxelsOnly
from SAMFineTunePanel.segment_editing.segmentation_lattice import LatticeBox, labelsOf


def addVoxels(
    segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str, box: LatticeBox, voxels: np.ndarray
) -> None:
    """Give a segment voxels; others keep theirs: where one lies in the same layer of labels, Slicer moves the
    segment to a layer of its own.

    Args:
        segmentationNode: of the segment.
        segmentID: of the segment.
        box: on the segment's lattice.
        voxels: (k, j, i), bool, of the size of the box.

    Raises:
        ValueError: Slicer refused.
    """
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    smallest, inside = box.around(voxels)
    if 0 in smallest.shape:
        return
    if not _writeInPlace(segmentationNode, segmentID, smallest, voxels[inside], True):
        _merge(segmentationNode, segmentID, smallest, voxels[inside], logic.MODE_MERGE_MASK, [])
    segment = segmentationNode.GetSegmentation().GetSegment(segmentID)
    if logic.GetSegmentStatus(segment) == logic.NotStarted:
        logic.SetSegmentStatus(segment, logic.InProgress)


def removeVoxels(
    segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str, box: LatticeBox, voxels: np.ndarray
) -> None:
    """Take voxels from a segment, as far as it has them; others of its layer of labels are not concerned.

    Args and errors as `addVoxels`.
    """
    smallest, inside = box.around(voxels)
    if 0 in smallest.shape:
        return
    if _writeInPlace(segmentationNode, segmentID, smallest, voxels[inside], False):
        return
    # As nothing of the others is overwritten, there is no reason to move the segment to another layer.
    everything = list(segmentationNode.GetSegmentation().GetSegmentIDs())
    # What a minimum is to take away is 0, all else stays.
    numbers = np.where(voxels[inside], 0, 255)
    mode = slicer.vtkSlicerSegmentationsModuleLogic.MODE_MERGE_MIN
    _merge(segmentationNode, segmentID, smallest, numbers, mode, everything)


def _writeInPlace(
    segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str, box: LatticeBox, voxels: np.ndarray, isAdded: bool
) -> bool:
    """Change labels where they lie; False, with nothing changed, where it takes more than that.

    That is: the labelmap has to grow, or to shrink, for Slicer cuts it to the voxels that are set; another
    segment of the layer lies there; the label needs a larger type; surfaces are to follow.
    """
    segmentation = segmentationNode.GetSegmentation()
    segment = segmentation.GetSegment(segmentID)
    image = segment.GetRepresentation(BINARY_LABELMAP)
    labels, own = labelsOf(image)
    value = segment.GetLabelValue()
    margin = 0 if isAdded else 1
    start = np.subtract(box.start, own.start)
    stop = start + box.shape[::-1]
    if (
        not hasVoxelsOnly(segmentationNode)
        or labels.size == 0
        or (start < margin).any()
        or (stop > np.array(labels.shape[::-1]) - margin).any()
        or value > np.iinfo(labels.dtype).max
    ):
        return False
    piece = labels[tuple(slice(low, high) for low, high in zip(start[::-1], stop[::-1], strict=True))]
    mine = piece == value
    if isAdded and (piece[voxels & ~mine] != 0).any():
        return False
    piece[voxels if isAdded else voxels & mine] = value if isAdded else 0
    # The segmentation passes it on as SourceRepresentationModified; views listen to the other one.
    image.Modified()
    segmentation.InvokeEvent(segmentation.RepresentationModified, segmentID)
    return True


def _merge(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentID: str,
    box: LatticeBox,
    numbers: np.ndarray,
    mode: int,
    overwritten: list[str],
) -> None:
    """Let Slicer write: it keeps layers, extents, surfaces and displays in step."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*box.extent)
    flat = np.ascontiguousarray(numbers, dtype=np.uint8).reshape(-1)
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(box.matrix))
    if not logic.SetBinaryLabelmapToSegment(image, segmentationNode, segmentID, mode, box.extent, False, overwritten):
        raise ValueError(_("Slicer could not write into {name}.").format(name=segmentationNode.GetName()))
