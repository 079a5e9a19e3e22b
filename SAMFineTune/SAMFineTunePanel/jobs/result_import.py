"""From the files of a job to the scene: predicted structures as segments, uncertainty as a volume."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from SAMFineTunePanel.examples.known_slices import KnownSlices
from SAMFineTunePanel.scene import raw_nrrd
from SAMFineTunePanel.scene.frames import nodeInScene
from SAMFineTunePanel.scene.scene_pairs import RESULT_ATTRIBUTE
from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP
from SAMFineTunePanel.scene.structure_label import StructureLabel
from SAMFineTunePanel.scene.voxel_grid import Box, gridOf, worldTransform

_CLOSED_SURFACE = "Closed surface"
# Two megabytes are read, compared and copied in about 12 ms, also from a file that was just mapped.
_PIECE_BYTES = 2 << 20
# Slicer copies what a segment holds already for every piece that is added to it, so these are larger; about 30 ms.
_SLAB_VOXELS = 4 << 20
_UNCERTAINTY_COLOURS = "vtkMRMLColorTableNodeFileViridis.txt"


def createSegmentation(volume: Any, name: str) -> slicer.vtkMRMLSegmentationNode:
    """An empty segmentation for a volume, or a frame: its geometry, its transform, its place in the tree of data."""
    volumeNode = nodeInScene(volume)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name))
    node.CreateDefaultDisplayNodes()
    node.SetAttribute(RESULT_ATTRIBUTE, "1")
    if volume is not volumeNode:
        # The node that shows the frames may have another geometry at present.
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume.node)
        node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volumeNode.GetID())
    else:
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    _placeBeside(node, volumeNode)
    return node


def segmentIDByName(segmentationNode: slicer.vtkMRMLSegmentationNode, name: str) -> str:
    """The segment of exactly this name, "" for none; Slicer's own search takes "Tumor" for "tumor"."""
    segmentation = segmentationNode.GetSegmentation()
    for segmentID in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(segmentID).GetName().strip() == name.strip():
            return segmentID
    return ""


def _placeBeside(node: slicer.vtkMRMLNode, volumeNode: slicer.vtkMRMLScalarVolumeNode) -> None:
    """In the subject hierarchy: into the patient's study, where the volume is."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumeItem, item = (hierarchy.GetItemByDataNode(each) for each in (nodeInScene(volumeNode), node))
    if volumeItem and item:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volumeItem))


@dataclass
class PredictedStructures:
    """Brings a predicted labelmap into a segmentation.

    Segments of the same names are replaced, missing ones are added, all others stay as they are.

    Attributes:
        path: the labelmap, on the grid of the volume, in raw NRRD.
        volume: for which it was predicted.
        segmentation: to fill.
        labels: what the numbers in the labelmap are.
        known: what the user has said of the volume's slices, to be kept; None keeps nothing.
        under: a node under whose transform the segmentation will be shown; None where it has its own already.
    """

    path: Path
    volume: slicer.vtkMRMLScalarVolumeNode
    segmentation: slicer.vtkMRMLSegmentationNode
    labels: list[StructureLabel]
    known: KnownSlices | None = None
    under: slicer.vtkMRMLTransformableNode | None = None

    def steps(self) -> Iterator[None]:
        """Does the work in small pieces.

        Raises:
            ValueError: the file does not fit the volume, which has changed meanwhile, or as `gridOf`.
            OSError: the file cannot be read.
        """
        voxels = raw_nrrd.read(self.path)
        if voxels.shape != gridOf(self.volume).shape:
            raise ValueError(
                _("Volume {name} was changed while it was being segmented.").format(name=self.volume.GetName())
            )
        if self.known is not None:
            yield from self.known.keepIn(voxels, self.labels)
        boxes = yield from _boxes(voxels, [label.value for label in self.labels])
        with _surfacesLast(self.segmentation):
            for label in self.labels:
                yield from self._fill(label, voxels, boxes.get(label.value))

    def _fill(self, label: StructureLabel, voxels: np.ndarray, box: Box | None) -> Iterator[None]:
        """Write a structure into its segment, slab by slab, each of a few million voxels."""
        segmentID = self._segment(label)
        if box is None:
            # A structure that was not found becomes an empty segment: that nothing is there is a result too.
            box = (slice(0, 1), slice(0, 1), slice(0, 1))
        depth, rows, columns = box
        thickness = max(1, _SLAB_VOXELS // max(1, (rows.stop - rows.start) * (columns.stop - columns.start)))
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        mode = logic.MODE_REPLACE
        for first in range(depth.start, depth.stop, thickness):
            slab = slice(first, min(first + thickness, depth.stop)), rows, columns
            piece = (voxels[slab] == label.value).astype(np.uint8)
            image = self._orientedImage(piece, (columns.start, rows.start, first))
            if not logic.SetBinaryLabelmapToSegment(image, self.segmentation, segmentID, mode):
                raise ValueError(_("Segment {name} could not be written.").format(name=label.name))
            mode = logic.MODE_MERGE_MAX
            yield

    def _segment(self, label: StructureLabel) -> str:
        """The segment to fill: the one of that name, or a new one that looks as it did where it was learnt."""
        segmentation = self.segmentation.GetSegmentation()
        segmentID = segmentIDByName(self.segmentation, label.name)
        if segmentID:
            return segmentID
        segment = slicer.vtkSegment()
        segment.SetName(label.name)
        segment.SetColor(*label.colour)
        if label.terminology:
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), label.terminology)
        # The same in all frames of a sequence, so that a segment that is chosen stays chosen.
        segmentID = segmentation.GenerateUniqueSegmentID(f"Segment_{label.value}")
        if not segmentation.AddSegment(segment, segmentID):
            raise ValueError(_("Segment {name} could not be added.").format(name=label.name))
        return segmentation.GetSegmentIdBySegment(segment)

    def _orientedImage(self, piece: np.ndarray, start: tuple[int, int, int]) -> slicer.vtkOrientedImageData:
        """A piece of the volume's grid in the coordinates of the segmentation."""
        image = slicer.vtkOrientedImageData()
        depth, rows, columns = piece.shape
        i, j, k = start
        image.SetExtent(i, i + columns - 1, j, j + rows - 1, k, k + depth - 1)
        scalars = numpy_to_vtk(np.ascontiguousarray(piece).reshape(-1), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
        image.GetPointData().SetScalars(scalars)
        toSegmentation = _toSegmentation(self.under if self.under is not None else self.segmentation)
        matrix = slicer.util.vtkMatrixFromArray(toSegmentation @ gridOf(self.volume).ijkToRas)
        image.SetGeometryFromImageToWorldMatrix(matrix)
        return image


@contextmanager
def _surfacesLast(node: slicer.vtkMRMLSegmentationNode) -> Iterator[None]:
    """Surfaces go while voxels are written and come back afterwards, whatever happens.

    Else Slicer would make those of a segment anew with each slab. What is displayed, and how, stays as chosen.
    """
    segmentation = node.GetSegmentation()
    if segmentation.GetSourceRepresentationName() != BINARY_LABELMAP or not segmentation.ContainsRepresentation(
        _CLOSED_SURFACE
    ):
        yield
        return
    before = {each: _surfaceAndVoxels(segmentation.GetSegment(each)) for each in segmentation.GetSegmentIDs()}
    node.RemoveClosedSurfaceRepresentation()
    try:
        yield
    finally:
        # Where the user has deleted it meanwhile, nobody is to wait for its surfaces.
        if slicer.mrmlScene.IsNodePresent(node):
            _giveBack(before, segmentation)
            node.CreateClosedSurfaceRepresentation()


def _giveBack(before: dict[str, tuple], segmentation: slicer.vtkSegmentation) -> None:
    """Their surfaces to segments that nobody has touched meanwhile, for they are still right."""
    for segmentID, (surface, *voxels) in before.items():
        segment = segmentation.GetSegment(segmentID)
        if segment is not None and surface is not None and _surfaceAndVoxels(segment) == (None, *voxels):
            segment.AddRepresentation(_CLOSED_SURFACE, surface)


def _surfaceAndVoxels(segment: slicer.vtkSegment) -> tuple:
    """A segment's surface, its labelmap, and when that was last changed."""
    image = segment.GetRepresentation(BINARY_LABELMAP)
    return segment.GetRepresentation(_CLOSED_SURFACE), image, image.GetMTime() if image is not None else 0


def _toSegmentation(node: slicer.vtkMRMLSegmentationNode) -> np.ndarray:
    """4 × 4 from the world to a segmentation's own coordinates."""
    return np.linalg.inv(worldTransform(node))


def _boxes(voxels: np.ndarray, values: list[int]) -> Generator[None, None, dict[int, Box]]:
    """The smallest box (k, j, i) around each label that occurs; yields between slabs of slices."""
    thickness = max(1, _PIECE_BYTES // max(1, voxels[0].nbytes))
    from SAMFineTuneLib.geometry.bounding_box import bounding_box

    found: dict[int, np.ndarray] = {}
    for start in range(0, len(voxels), thickness):
        slab = np.asarray(voxels[start : start + thickness])
        for value in values:
            inside = bounding_box(slab == value)
            if inside is not None:
                box = np.array([[each.start, each.stop] for each in inside]) + np.array([[start], [0], [0]])
                known = found.get(value, box)
                found[value] = np.stack(
                    [np.minimum(known[:, 0], box[:, 0]), np.maximum(known[:, 1], box[:, 1])], axis=1
                )
        yield
    return {value: _boxOf(box) for value, box in found.items()}


def _boxOf(bounds: np.ndarray) -> Box:
    """A box from its first places and those behind its last, for each axis (k, j, i)."""
    (k, kStop), (j, jStop), (i, iStop) = bounds.tolist()
    return slice(k, kStop), slice(j, jStop), slice(i, iStop)


@dataclass
class UncertaintyVolume:
    """Brings an uncertainty (0 certain, 1 not at all) into the scene as a volume.

    Attributes:
        path: the values, on the grid of the volume, in raw NRRD.
        volume: for which it was predicted.
        node: the new volume, once the steps are done.
    """

    path: Path
    volume: slicer.vtkMRMLScalarVolumeNode
    node: slicer.vtkMRMLScalarVolumeNode | None = None

    def steps(self) -> Iterator[None]:
        """Does the work in small pieces.

        Raises:
            ValueError: the file is not such a file.
            OSError: the file cannot be read.
        """
        image = yield from uncertaintyImage(self.path)
        node = self.node = addUncertaintyVolume(self.volume)
        yield
        node.SetAndObserveImageData(image)
        yield


def uncertaintyImage(path: Path) -> Generator[None, None, vtk.vtkImageData]:
    """The values of a file, in raw NRRD, as an image without a place; yields between pieces.

    Raises:
        ValueError: the file is not such a file.
        OSError: the file cannot be read.
    """
    values = raw_nrrd.read(path)
    image = vtk.vtkImageData()
    image.SetDimensions(*values.shape[::-1])
    image.AllocateScalars(vtk.VTK_FLOAT, 1)
    target = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(values.shape)
    thickness = max(1, _PIECE_BYTES // max(1, values[0].nbytes))
    for start in range(0, len(values), thickness):
        target[start : start + thickness] = values[start : start + thickness]
        yield
    return image


def addUncertaintyVolume(volume: Any) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume of the scene without voxels yet, with the place of another one, or of a frame, and the right colours."""
    name = _("{volume} uncertainty").format(volume=volume.GetName())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName(name))
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    # Before the voxels: a display without a window of its own would search all of them for one.
    _setDisplay(node)
    _placeBeside(node, volume)
    return node


def _setDisplay(node: slicer.vtkMRMLScalarVolumeNode) -> None:
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_UNCERTAINTY_COLOURS)
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
