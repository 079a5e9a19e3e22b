"""Between slice views and slice numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.voxel_grid import VoxelGrid, gridOf

# Cosine between a view's plane and a volume's slices; beyond it, the view shows parts of several slices.
_PARALLEL = np.cos(np.radians(1.0))
_VIEW_OF = {"axial": "Red", "sagittal": "Yellow", "coronal": "Green"}


@dataclass(frozen=True)
class SliceInView:
    """The slice of a volume that a view shows.

    Attributes:
        number: counted from 0 along the volume's own voxel axis; None when no view shows one.
        viewName: such as "Red".
        problem: why there is none, in words.
    """

    number: int | None = None
    viewName: str = ""
    problem: str = ""


def sliceInView(volumeNode: slicer.vtkMRMLScalarVolumeNode, orientation: str) -> SliceInView:
    """The slice of a volume in the view that shows its slices of an orientation.

    Raises:
        ValueError: as `gridOf`.
    """
    grid = gridOf(volumeNode)
    axis = grid.voxelAxis(orientation)
    for node in _viewsByPreference(orientation):
        if not _isParallel(node, grid, axis):
            continue
        number = _numberAt(node, grid, axis)
        if 0 <= number < grid.size[axis]:
            return SliceInView(number, node.GetName())
        return SliceInView(
            None,
            node.GetName(),
            _("View {view} is beyond volume {volume}.").format(view=node.GetName(), volume=volumeNode.GetName()),
        )
    return SliceInView(
        problem=_("No view shows {orientation} slices of {volume} as they were taken.").format(
            orientation=orientation, volume=volumeNode.GetName()
        )
    )


def showSlice(volumeNode: slicer.vtkMRMLScalarVolumeNode, orientation: str, number: int) -> str:
    """Move a view to a slice, turning the view where it does not lie along the volume; its name.

    Raises:
        ValueError: there is no slice view, no such slice, or as `gridOf`.
    """
    grid = gridOf(volumeNode)
    axis = grid.voxelAxis(orientation)
    if not 0 <= number < grid.size[axis]:
        raise ValueError(
            _("Volume {volume} has no {orientation} slice {number}.").format(
                volume=volumeNode.GetName(), orientation=orientation, number=number
            )
        )
    views = _viewsByPreference(orientation)
    if not views:
        raise ValueError(_("There is no slice view in this layout."))
    node = next((each for each in views if _isParallel(each, grid, axis)), views[0])
    logic = slicer.app.applicationLogic().GetSliceLogic(node)
    if logic is not None:
        _showInBackground(logic, volumeNode)
    if not _isParallel(node, grid, axis):
        node.SetOrientation(orientation.capitalize())
        node.RotateToVolumePlane(volumeNode)
    centre = (np.array(grid.size) - 1) / 2.0
    centre[axis] = number
    node.JumpSliceByOffsetting(*(grid.ijkToRas @ [*centre, 1.0])[:3])
    return node.GetName()


def _showInBackground(logic: slicer.vtkMRMLSliceLogic, volumeNode: slicer.vtkMRMLScalarVolumeNode) -> None:
    composite = logic.GetSliceCompositeNode()
    shown = (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID())
    if volumeNode.GetID() not in shown:
        composite.SetBackgroundVolumeID(volumeNode.GetID())
        logic.FitSliceToBackground()


def _viewsByPreference(orientation: str) -> list[slicer.vtkMRMLSliceNode]:
    """The slice views that are to be seen, that of the orientation first."""
    nodes = [node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode") if node.IsMappedInLayout()]
    return sorted(nodes, key=lambda node: (node.GetName() != _VIEW_OF[orientation], node.GetName()))


def _isParallel(node: slicer.vtkMRMLSliceNode, grid: VoxelGrid, axis: int) -> bool:
    toRas = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    normal = toRas[:3, 2] / np.linalg.norm(toRas[:3, 2])
    across = np.cross(grid.ijkToRas[:3, (axis + 1) % 3], grid.ijkToRas[:3, (axis + 2) % 3])
    return abs(float(normal @ across)) / np.linalg.norm(across) >= _PARALLEL


def _numberAt(node: slicer.vtkMRMLSliceNode, grid: VoxelGrid, axis: int) -> int:
    centre = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:, 3]
    # The centre of the view may lie beside the volume; only the distance across the slices counts.
    return int(np.floor((np.linalg.inv(grid.ijkToRas) @ centre)[axis] + 0.5))
