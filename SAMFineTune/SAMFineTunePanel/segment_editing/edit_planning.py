"""Planning an edit: which voxels a segment gains and loses so that it equals a mask, within the masking settings."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP
from SAMFineTunePanel.scene.voxel_grid import Box, gridOf, worldTransform
from SAMFineTunePanel.segment_editing.masking_settings import MaskingSettings
from SAMFineTunePanel.segment_editing.segment_edit import SegmentChange, SegmentEdit
from SAMFineTunePanel.segment_editing.segmentation_lattice import LatticeBox, brought, latticeOf, segmentIn


def plannedEdit(
    volumeNode: slicer.vtkMRMLScalarVolumeNode,
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentID: str,
    box: Box,
    mask: np.ndarray,
    where: np.ndarray,
    masking: MaskingSettings,
) -> SegmentEdit:
    """What makes a segment equal a mask in a part of a volume's grid; nothing else changes. It is not done yet.

    A segment on another lattice than the volume stays on its own: those of its voxels whose nearest voxel of the
    volume belongs to the part take the value of the mask there.

    Args:
        volumeNode: on whose grid the mask lies.
        segmentationNode: of the segment.
        segmentID: of the segment.
        box: (k, j, i), first and behind the last voxel on the volume's grid.
        mask: (k, j, i), bool, of the size of the box.
        where: as `mask`; the part.
        masking: where it may change, and which other segments give way.

    Raises:
        ValueError: no such segment, a segmentation of surfaces, a box beyond the volume or of another size than
            the mask, masking settings that name what is gone, or as `gridOf` and `worldTransform`.
    """
    _requireVoxels(segmentationNode, segmentID)
    given = _boxOnGrid(volumeNode, segmentationNode, box, mask)
    lattice = latticeOf(segmentationNode, segmentID)
    own = given.on(given.matrix if lattice is None else lattice)
    held = segmentIn(segmentationNode, segmentID, own)
    differs = brought(where, given, own) & (brought(mask, given, own) != held)
    allowed = masking.allowed(segmentationNode, segmentID, own)
    changed = differs if allowed is None else differs & allowed
    changes = []
    if changed.any():
        gained = changed & ~held
        changes = [SegmentChange.of(segmentationNode, segmentID, own, gained, changed & held)]
        changes += _losses(segmentationNode, masking.overwritten(segmentationNode, segmentID), own, gained)
    return SegmentEdit(segmentationNode, changes, int(differs.sum() - changed.sum()))


def _requireVoxels(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str) -> None:
    segmentation = segmentationNode.GetSegmentation()
    segment = segmentation.GetSegment(segmentID)
    if segment is None:
        raise ValueError(_("Segmentation {name} has lost the segment.").format(name=segmentationNode.GetName()))
    if segmentation.GetSourceRepresentationName() != BINARY_LABELMAP:
        raise ValueError(
            _(
                "{name} is not made of voxels but of surfaces. Make its binary labelmap the source representation "
                "first (module Segmentations)."
            ).format(name=segmentationNode.GetName())
        )
    if segment.GetRepresentation(BINARY_LABELMAP) is None:
        segment.AddRepresentation(BINARY_LABELMAP, slicer.vtkOrientedImageData())


def _boxOnGrid(
    volumeNode: slicer.vtkMRMLScalarVolumeNode,
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    box: Box,
    mask: np.ndarray,
) -> LatticeBox:
    """The box in the segmentation's own coordinates."""
    grid = gridOf(volumeNode)
    inside = all(0 <= each.start < each.stop <= size for each, size in zip(box, grid.shape, strict=True))
    if not inside or mask.shape != tuple(each.stop - each.start for each in box):
        raise ValueError(
            _("The mask does not fit into volume {name}, which was changed meanwhile.").format(
                name=volumeNode.GetName()
            )
        )
    matrix = np.linalg.inv(worldTransform(segmentationNode)) @ grid.ijkToRas
    k, j, i = box
    return LatticeBox((i.start, j.start, k.start), mask.shape, matrix)


def _losses(
    segmentationNode: slicer.vtkMRMLSegmentationNode, otherIDs: list[str], box: LatticeBox, gained: np.ndarray
) -> list[SegmentChange]:
    """What other segments lose where this one gains voxels."""
    smallest, inside = box.around(gained)
    changes = []
    for otherID in otherIDs:
        lattice = latticeOf(segmentationNode, otherID)
        own = smallest if lattice is None else smallest.on(lattice)
        lost = segmentIn(segmentationNode, otherID, own) & brought(gained[inside], smallest, own)
        if lost.any():
            changes.append(SegmentChange.of(segmentationNode, otherID, own, np.zeros_like(lost), lost))
    return changes
