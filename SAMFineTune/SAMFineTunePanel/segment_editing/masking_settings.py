"""Where the Segment Editor allows a segment to be changed, and which others give way: its section Masking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.voxel_grid import gridOf, worldTransform
from SAMFineTunePanel.segment_editing.segmentation_lattice import LatticeBox, brought, segmentIn

# vtkMRMLSegmentEditorNode's and vtkMRMLSegmentationNode's own first values: everywhere, overwrite all.
_EVERYWHERE = slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere
_OVERWRITE_ALL = slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments


@dataclass(frozen=True, eq=False)
class MaskingSettings:
    """The section Masking of the Segment Editor; without arguments, as it is when nobody has chosen anything.

    Attributes:
        maskMode: "Editable area", one of vtkMRMLSegmentationNode's EditAllowed….
        maskSegmentID: where that is a single segment, which.
        source: volume whose values are compared with `intensities`.
        intensities: "Editable intensity range", its two ends included; None for any.
        overwriteMode: "Modify other segments", one of vtkMRMLSegmentEditorNode's Overwrite….
    """

    maskMode: int = _EVERYWHERE
    maskSegmentID: str = ""
    source: slicer.vtkMRMLScalarVolumeNode | None = None
    intensities: tuple[float, float] | None = None
    overwriteMode: int = _OVERWRITE_ALL

    def allowed(
        self, segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str, box: LatticeBox
    ) -> np.ndarray | None:
        """Which voxels of a box of a segment may be changed: (k, j, i), bool; None for all.

        As vtkMRMLSegmentationNode.GenerateEditMask: outside of segments means outside of the others.

        Raises:
            ValueError: the settings name a segment or a volume that is gone, or as `gridOf`.
        """
        area = self._area(segmentationNode, segmentID, box)
        if self.intensities is None:
            return area
        if self.source is None:
            raise ValueError(
                _(
                    "The Segment Editor allows changes in a range of intensities only, of a volume that is gone. "
                    "Choose a source volume there, or switch the range off."
                )
            )
        low, high = self.intensities
        values = _valuesIn(self.source, segmentationNode, box)
        inRange = (values >= low) & (values <= high)
        return inRange if area is None else area & inRange

    def overwritten(self, segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str) -> list[str]:
        """The segments that lose the voxels that this one gains."""
        others = _others(segmentationNode, segmentID)
        if self.overwriteMode == slicer.vtkMRMLSegmentEditorNode.OverwriteNone:
            return []
        if self.overwriteMode == slicer.vtkMRMLSegmentEditorNode.OverwriteVisibleSegments:
            return _visible(segmentationNode, others)
        return others

    def _area(
        self, segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str, box: LatticeBox
    ) -> np.ndarray | None:
        node = slicer.vtkMRMLSegmentationNode
        if self.maskMode == _EVERYWHERE:
            return None
        others = _others(segmentationNode, segmentID)
        if self.maskMode == node.EditAllowedOutsideAllSegments:
            return ~_held(segmentationNode, others, box)
        if self.maskMode == node.EditAllowedOutsideVisibleSegments:
            return ~_held(segmentationNode, _visible(segmentationNode, others), box)
        if self.maskMode == node.EditAllowedInsideAllSegments:
            return _held(segmentationNode, [*others, segmentID], box)
        if self.maskMode == node.EditAllowedInsideVisibleSegments:
            return _held(segmentationNode, _visible(segmentationNode, [*others, segmentID]), box)
        if segmentationNode.GetSegmentation().GetSegment(self.maskSegmentID) is None:
            raise ValueError(
                _(
                    "The Segment Editor allows changes inside one segment only, which is gone. "
                    "Choose another editable area there (Masking)."
                )
            )
        return _held(segmentationNode, [self.maskSegmentID], box)


def maskingSettingsOf(editorNode: slicer.vtkMRMLSegmentEditorNode | None) -> MaskingSettings:
    """The masking settings of an editor's node at present; Slicer's own first values where there is none."""
    if editorNode is None:
        return MaskingSettings()
    limited = editorNode.GetSourceVolumeIntensityMask()
    return MaskingSettings(
        maskMode=editorNode.GetMaskMode(),
        maskSegmentID=editorNode.GetMaskSegmentID() or "",
        source=editorNode.GetSourceVolumeNode(),
        intensities=tuple(editorNode.GetSourceVolumeIntensityMaskRange()) if limited else None,
        overwriteMode=editorNode.GetOverwriteMode(),
    )


def _others(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentID: str) -> list[str]:
    return [each for each in segmentationNode.GetSegmentation().GetSegmentIDs() if each != segmentID]


def _visible(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentIDs: list[str]) -> list[str]:
    """Those that are shown; whether the segmentation as a whole is hidden does not count, as in Slicer."""
    display = segmentationNode.GetDisplayNode()
    return [each for each in segmentIDs if display is not None and display.GetSegmentVisibility(each)]


def _held(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentIDs: list[str], box: LatticeBox) -> np.ndarray:
    held = np.zeros(box.shape, bool)
    for segmentID in segmentIDs:
        held |= segmentIn(segmentationNode, segmentID, box)
    return held


def _valuesIn(
    volumeNode: slicer.vtkMRMLScalarVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode, box: LatticeBox
) -> np.ndarray:
    """The volume at the voxels of a box; beyond it Slicer takes its background, what most of its corners hold.

    Where their voxels differ Slicer interpolates; here the nearest voxel counts.
    """
    grid = gridOf(volumeNode)
    matrix = np.linalg.inv(worldTransform(segmentationNode)) @ grid.ijkToRas
    whole = LatticeBox((0, 0, 0), grid.shape, matrix)
    background = volumeNode.GetImageBackgroundScalarComponentAsDouble(0)
    values = slicer.util.arrayFromVolume(volumeNode)
    # The editable range is one of single values, so of colours the first counts.
    return brought(values if values.ndim == 3 else values[..., 0], whole, box, background)
