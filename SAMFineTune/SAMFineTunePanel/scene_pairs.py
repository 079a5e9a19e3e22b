"""Which volume goes with which segmentation, as far as the scene tells."""

from __future__ import annotations

from collections.abc import Collection

import slicer


def nextPair(taken: Collection[tuple[str, str]]) -> tuple | None:
    """A volume and a segmentation to offer as an example; None when all pairs are taken.

    Segmentations come with the volume that they were drawn on, the volume in view first; then every
    other pair.

    Args:
        taken: pairs of node IDs that are examples already.
    """
    volumes = volumesOfScene()
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    drawn = [(_volumeDrawnOn(each), each) for each in segmentations]
    likely = sorted(
        ((volume, each) for volume, each in drawn if volume in volumes), key=lambda pair: volumes.index(pair[0])
    )
    others = [(volume, each) for volume in volumes for each in segmentations]
    free = (pair for pair in (*likely, *others) if (pair[0].GetID(), pair[1].GetID()) not in taken)
    return next(free, None)


def imagesOfScene() -> list:
    """The scene's images, in the order in which they came."""
    return [
        each
        for each in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if not each.IsA("vtkMRMLLabelMapVolumeNode") and not each.GetHideFromEditors()
    ]


def volumesOfScene() -> list:
    """The scene's images, that in view first."""
    shown = slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID()
    return sorted(imagesOfScene(), key=lambda each: each.GetID() != shown)


def _volumeDrawnOn(segmentation):
    return segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
