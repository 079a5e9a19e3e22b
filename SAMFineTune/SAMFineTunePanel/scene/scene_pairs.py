"""Which volume goes with which segmentation, as far as the scene shows it."""

from __future__ import annotations

from collections.abc import Collection

import slicer


def nextPair(taken: Collection[tuple[str, str]]) -> tuple | None:
    """A volume and a segmentation to offer as an example; None when all pairs are taken.

    Segmentations come with the volume that they were drawn on, the volume in view first; those that
    were drawn on none of the scene's come with each. What a model has found is not offered.

    Args:
        taken: pairs of node IDs that are examples already.
    """
    volumes = volumesOfScene()
    # What a model has found is nothing to learn from, unless somebody chooses it by hand.
    segmentations = [
        each
        for each in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        if not each.GetAttribute(RESULT_ATTRIBUTE) and not each.GetHideFromEditors()
    ]
    drawn = [(_volumeDrawnOn(each), each) for each in segmentations]
    likely = sorted(
        ((volume, each) for volume, each in drawn if volume in volumes), key=lambda pair: volumes.index(pair[0])
    )
    # A segmentation that was drawn on a volume of the scene belongs to that one and to no other.
    homeless = [each for volume, each in drawn if volume not in volumes]
    others = [(volume, each) for volume in volumes for each in homeless]
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


def _volumeDrawnOn(segmentation: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLScalarVolumeNode | None:
    return segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())


# Marks segmentations that a model has made.
RESULT_ATTRIBUTE = "SAMFineTune.Result"
