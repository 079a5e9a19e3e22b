"""Refuses, in words, what is not the kind of node that is needed; scripts pass anything."""

from __future__ import annotations

from slicer.i18n import tr as _

from SAMFineTunePanel.scene.voxel_grid import ORIENTATIONS


def requireVolume(node: object) -> None:
    """Refuse what is not a volume node.

    Raises:
        ValueError: it is something else, in words.
    """
    if not _isA(node, "vtkMRMLScalarVolumeNode"):
        raise ValueError(_("A volume node is needed, not {thing}.").format(thing=_described(node)))


def requireSegmentation(node: object) -> None:
    """Refuse what is not a segmentation node.

    Raises:
        ValueError: it is something else, in words.
    """
    if not _isA(node, "vtkMRMLSegmentationNode"):
        raise ValueError(
            _(
                "A segmentation node is needed, not {thing}. A labelmap volume is made into one by the module "
                "Data or Segmentations."
            ).format(thing=_described(node))
        )


def requireOrientation(orientation: str) -> None:
    """Refuse what is not an orientation.

    Raises:
        ValueError: it is something else, in words.
    """
    if orientation not in ("auto", *ORIENTATIONS):
        raise ValueError(
            _("{thing} is no orientation; known are auto, {known}.").format(
                thing=orientation, known=", ".join(ORIENTATIONS)
            )
        )


def _isA(node: object, className: str) -> bool:
    return hasattr(node, "IsA") and bool(node.IsA(className))


def _described(node: object) -> str:
    if hasattr(node, "GetName") and hasattr(node, "GetClassName"):
        return f"{node.GetName()} ({node.GetClassName()})"
    return repr(node)
