"""The grid of a volume: where its voxels lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.nifti_forms import NiftiForms

# Grids that are off by less than this part of a voxel are matched voxel by voxel: nearest-neighbour
# sampling would give the same voxels. Headers in single precision cause smaller differences.
ON_GRID = 0.1

# Axes count as perpendicular if the cosine of the angle between any two is below this.
_PERPENDICULAR = 1e-4


@dataclass(frozen=True)
class Geometry:
    """The grid of a 3-D image: it maps an index to a place in the patient.

    Attributes:
        size: number of voxels along i, j, k.
        spacing: distance between neighbouring voxels along i, j, k, in mm.
        origin: centre of voxel (0, 0, 0) in LPS, mm.
        direction: 3 x 3 matrix, row by row; its columns are the unit vectors of i, j, k in LPS.
            They need not be perpendicular to each other.
        others: other grids on which the file places the same voxels, if it contradicts itself.
        forms: the two forms of the NIfTI header, if they contradict each other.
        is_picture: whether the file is a picture such as PNG, or a stack of them in one TIFF file,
            which does not say where its pixels lie: spacing and place are assumed, and pixels of
            two files fit by their numbers.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, float, float, float, float, float, float, float, float]
    others: tuple[Geometry, ...] = field(default=(), compare=False, repr=False)
    forms: NiftiForms | None = field(default=None, compare=False, repr=False)
    is_picture: bool = field(default=False, compare=False, repr=False)

    @classmethod
    def from_affine(cls, size: tuple[int, int, int], affine: NDArray[np.float64]) -> Geometry:
        """The geometry of a grid from its 4 x 4 matrix from (i, j, k, 1) to (L, P, S, 1) in mm."""
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        direction = (affine[:3, :3] / lengths).ravel().tolist()
        return cls(size, tuple(lengths.tolist()), tuple(affine[:3, 3].tolist()), tuple(direction))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (k, j, i) of the array of voxels."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def is_perpendicular(self) -> bool:
        """Whether the three axes are perpendicular to each other, so that nothing is sheared."""
        axes = np.asarray(self.direction, dtype=float).reshape(3, 3)
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() < _PERPENDICULAR)

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4 matrix from (i, j, k, 1) to (L, P, S, 1) in mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(self.direction, dtype=float).reshape(3, 3) * self.spacing
        matrix[:3, 3] = self.origin
        return matrix

    @property
    def corners(self) -> NDArray[np.float64]:
        """(8, 4) indices (i, j, k, 1) of the corner voxels."""
        ends = [(0, max(length - 1, 1)) for length in self.size]
        return np.array([(*corner, 1) for corner in product(*ends)], dtype=float)

    def same_as(self, other: Geometry, tolerance: float = 1e-3) -> bool:
        """Whether both have the same voxels: no corner moves by more than `tolerance` voxels."""
        return tuple(self.size) == tuple(other.size) and farthest_move(self, other) <= tolerance


def index_map(source: Geometry, target: Geometry) -> NDArray[np.float64]:
    """The 4 x 4 matrix from an index (i, j, k, 1) of `target` to that of `source` at its place."""
    return np.linalg.inv(source.affine) @ target.affine


def farthest_move(geometry: Geometry, other: Geometry) -> float:
    """The largest distance between a corner of one grid and the same corner of the other.

    In voxels along an axis. Both grids are taken to have the size of `geometry`.
    """
    moved = (index_map(other, geometry) - np.eye(4)) @ geometry.corners.T
    return float(np.abs(moved).max())
