"""The voxel lattice of a volume node, in the world: where its voxels lie, parent transforms included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

# How far directions may be off right angles, and lattices that should be the same from each other (in voxels).
_TOLERANCE = 1e-3

# Grey levels, colours, and colours with an opacity.
_COMPONENTS = (1, 3, 4)

# Slicer's coordinates grow to the right and to the front, the library's to the left and to the back.
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


# A box of an array (k, j, i).
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Voxels of a volume.

    Attributes:
        size: number of voxels along i, j, k.
        ijkToRas: 4 × 4; (i, j, k, 1) to millimetres right, anterior, superior in the world.
    """

    size: tuple[int, int, int]
    ijkToRas: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a numpy array on this grid: (k, j, i)."""
        return self.size[::-1]

    @property
    def spacing(self) -> np.ndarray:
        """Millimetres between voxels along i, j, k."""
        return np.linalg.norm(self.ijkToRas[:3, :3], axis=0)

    def voxelAxis(self, orientation: str) -> int:
        """The voxel axis (0 for i, 1 for j, 2 for k) along which slices of an orientation are stacked.

        Each axis of an oblique volume belongs to the orientation that it is nearest to, none twice.
        """
        from SAMFineTuneLib.geometry.axes import array_axis
        from SAMFineTuneLib.geometry.grid import Geometry

        return 2 - array_axis(Geometry.from_affine(self.size, _RAS_TO_LPS @ self.ijkToRas), orientation)


def gridOf(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> VoxelGrid:
    """The voxels of a volume node in the world.

    Raises:
        ValueError: the volume has no voxels, several values a voxel that are no colours, or lies under a
            transform that warps or shears it; said in words.
    """
    name = volumeNode.GetName()
    image = volumeNode.GetImageData()
    if image is None or min(image.GetDimensions()) < 1:
        raise ValueError(_("Volume {name} has no voxels.").format(name=name))
    components = image.GetNumberOfScalarComponents()
    if components not in _COMPONENTS:
        raise ValueError(
            _("Volume {name} has {count} values in each voxel, which are neither grey levels nor colours.").format(
                name=name, count=components
            )
        )
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    ijkToRas = worldTransform(volumeNode) @ slicer.util.arrayFromVTKMatrix(matrix)
    # A transform that flattens the volume makes a spacing of 0, which is refused below.
    with np.errstate(divide="ignore", invalid="ignore"):
        axes = ijkToRas[:3, :3] / np.linalg.norm(ijkToRas[:3, :3], axis=0)
    if not np.isfinite(axes).all() or np.abs(axes.T @ axes - np.eye(3)).max() > _TOLERANCE:
        raise ValueError(
            _(
                "Volume {name} is sheared, by itself or by its transform, so that its voxels are no boxes. "
                "Resample it first (module Resample Scalar/Vector/DWI Volume)."
            ).format(name=name)
        )
    return VoxelGrid(tuple(image.GetDimensions()), ijkToRas)


def worldTransform(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    """4 × 4 matrix from a node's own coordinates to the world's.

    Raises:
        ValueError: the node lies under a transform that is not linear.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise ValueError(
            _("{name} lies under a transform that is not linear. Harden it first (module Transforms).").format(
                name=node.GetName()
            )
        )
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def voxelOffset(grid: VoxelGrid, imageToRas: np.ndarray) -> np.ndarray | None:
    """Whole voxels to add to an image's own i, j, k to have those of the grid.

    None when the image's voxels are not voxels of the grid.
    """
    own = np.linalg.inv(grid.ijkToRas) @ imageToRas
    offset = np.round(own[:3, 3])
    same = np.eye(4)
    same[:3, 3] = offset
    # Over a whole volume small differences of direction add up, so the far corner is compared.
    corner = np.array([*grid.size, 1.0])
    if np.abs(own - same)[:3, :3].max() > _TOLERANCE or np.abs((own - same) @ corner).max() > 0.05:
        return None
    return offset.astype(int)


ORIENTATIONS = ("axial", "coronal", "sagittal")
