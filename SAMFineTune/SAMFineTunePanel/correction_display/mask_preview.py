"""The mask that is not accepted yet, shown in the slice views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from SAMFineTunePanel.scene.scene_removal import removeDisplayable
from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP
from SAMFineTunePanel.scene.transient_node import makeTransientNode

if TYPE_CHECKING:
    from SAMFineTunePanel.correction.correction import Correction
    from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment

_SEGMENT_ID = "preview"
# The share of the segment's colour; the rest is white, so that one can tell the two apart.
_OWN_SHARE = 0.45
_FILL, _OUTLINE = 0.35, 1.0


class MaskPreview:
    """Shows what a correction proposes, in a segmentation of its own that is neither saved nor offered.

    Slicer writes an error into its log whenever a segmentation that has no place in the tree of data reports that its
    display or one of its segments has changed. So all of that is settled before the node comes into the scene, and
    what changes later is the labelmap: it is empty where there is nothing to show.

    Args:
        correction: whose masks are shown until `remove`.
    """

    def __init__(self, correction: Correction) -> None:
        self._correction = correction
        self._node: slicer.vtkMRMLSegmentationNode | None = None
        # What is shown, and where: drawing all views anew takes longer than finding a mask.
        self._shown: dict[int, np.ndarray] = {}
        self._shownAt = b""
        correction.addListener(self._onCorrection)
        self.update()

    @property
    def node(self) -> slicer.vtkMRMLSegmentationNode | None:
        """The segmentation that shows it; None while there is nothing to show it for."""
        return self._node

    def remove(self) -> None:
        """Show nothing any more."""
        self._correction.removeListener(self._onCorrection)
        self._removeNode()

    def update(self) -> None:
        """Show what the correction proposes at present."""
        if not self._correction.session.isOpen:
            self._removeNode()
            return
        session = self._correction.session
        masks = session.preview
        colour = _paler(session.segment)
        if self._node is not None and not _isAsItShouldBe(self._node, colour):
            self._removeNode()
        if self._node is None:
            if not masks:
                return
            self._node = _addNode(colour)
        place = session.segment.grid.ijkToRas.tobytes()
        if _areSame(masks, self._shown) and (place == self._shownAt or not masks):
            return
        segmentation = self._node.GetSegmentation()
        image = segmentation.GetSegment(_SEGMENT_ID).GetRepresentation(BINARY_LABELMAP)
        if masks:
            _fill(image, masks, session.segment)
        else:
            image.GetPointData().GetScalars().Fill(0)
            image.Modified()
        # What the views follow.
        segmentation.InvokeEvent(segmentation.RepresentationModified, _SEGMENT_ID)
        self._shown, self._shownAt = dict(masks), place

    def _removeNode(self) -> None:
        node, self._node = self._node, None
        self._shown = {}
        removeDisplayable(node)

    def _onCorrection(self, correction: Correction, event: str) -> None:
        if event in ("mask", "slice", "state"):
            self.update()


def _isAsItShouldBe(node: slicer.vtkMRMLSegmentationNode, colour: list[float]) -> bool:
    if not slicer.mrmlScene.IsNodePresent(node):
        return False
    return np.allclose(node.GetSegmentation().GetSegment(_SEGMENT_ID).GetColor(), colour)


def _areSame(masks: dict[int, np.ndarray], others: dict[int, np.ndarray]) -> bool:
    """Whether these are the same arrays; masks are not changed once they are found."""
    return masks.keys() == others.keys() and all(masks[number] is others[number] for number in masks)


def _paler(corrected: CorrectedSegment) -> list[float]:
    """The segment's colour, paler, so that one can tell the two apart."""
    own = corrected.segmentation.GetSegmentation().GetSegment(corrected.segmentID)
    return [_OWN_SHARE * part + 1 - _OWN_SHARE for part in own.GetColor()]


def _addNode(colour: list[float]) -> slicer.vtkMRMLSegmentationNode:
    display = makeTransientNode("vtkMRMLSegmentationDisplayNode", _("Proposed mask"))
    display.SetVisibility3D(False)
    display.SetOpacity2DFill(_FILL)
    display.SetOpacity2DOutline(_OUTLINE)
    display.SetSliceIntersectionThickness(2)
    slicer.mrmlScene.AddNode(display)
    segment = slicer.vtkSegment()
    segment.SetName(_("Proposed mask"))
    segment.SetColor(*colour)
    segment.AddRepresentation(BINARY_LABELMAP, slicer.vtkOrientedImageData())
    node = makeTransientNode("vtkMRMLSegmentationNode", _("Proposed mask"))
    node.GetSegmentation().AddSegment(segment, _SEGMENT_ID)
    # With the scene it finds its display now; else it would find and report it when Slicer observes it already.
    node.SetScene(slicer.mrmlScene)
    node.SetAndObserveDisplayNodeID(display.GetID())
    slicer.mrmlScene.AddNode(node)
    return node


def _fill(image: slicer.vtkOrientedImageData, masks: dict[int, np.ndarray], corrected: CorrectedSegment) -> None:
    """Put masks of slices into a labelmap, on the grid of the volume, in one go for who watches it."""
    first, last = min(masks), max(masks)
    extent = [0, 0, 0, 0, 0, 0]
    for axis, size in enumerate(corrected.grid.size):
        extent[2 * axis : 2 * axis + 2] = (first, last) if axis == corrected.axis else (0, size - 1)
    matrix = slicer.util.vtkMatrixFromArray(corrected.grid.ijkToRas)
    if list(image.GetExtent()) != extent or image.GetPointData().GetScalars() is None:
        image.SetExtent(extent)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    shape = [extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in (2, 1, 0)]
    scalars = image.GetPointData().GetScalars()
    # A view of the image's memory: what is put into it is in the image.
    slices = np.moveaxis(vtk_to_numpy(scalars).reshape(shape), 2 - corrected.axis, 0)
    for number in range(first, last + 1):
        slices[number - first] = masks.get(number, 0)
    scalars.Modified()
    image.SetGeometryFromImageToWorldMatrix(matrix)
    image.Modified()
