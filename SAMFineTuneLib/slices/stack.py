"""A volume as a stack of slices along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from SAMFineTuneLib.geometry.axes import PlaneAxis, array_axis, axis_name, plane_axes
from SAMFineTuneLib.volumes import Geometry, Labelmap, Volume

# Spacings that differ by less are the same for the choice of an axis.
_SAME_SPACING = 1.05

# Shares of labelled slices, from the first to the last, that tell single slices from whole ones.
_SPARSE, _DENSE = 0.5, 0.9


@dataclass(frozen=True)
class SliceStack:
    """The slices of one array along one of its axes, in the volume's own index order.

    Each slice is turned as `plane_axes` says, so that a structure looks the same to a network
    however a file stores its axes.

    Args:
        array: (k, j, i) voxels.
        geometry: the grid of the array.
        axis: axis of the array along which the slices are stacked.
    """

    array: np.ndarray
    geometry: Geometry
    axis: int

    @classmethod
    def of(cls, volume: Volume | Labelmap, axis: str) -> SliceStack:
        """The stack called "axial", "coronal" or "sagittal"."""
        return cls(volume.array, volume.geometry, array_axis(volume.geometry, axis))

    def __len__(self) -> int:
        return int(self.array.shape[self.axis])

    def __getitem__(self, number: int) -> np.ndarray:
        """Slice `number` as (rows, columns), a view of the volume."""
        rows, columns = self._plane
        pixels: np.ndarray = self.array.transpose(self.axis, rows.axis, columns.axis)[number]
        return pixels[:: -1 if rows.reverse else 1, :: -1 if columns.reverse else 1]

    def place(self, voxel: tuple[float, float, float]) -> tuple[float, float, float]:
        """Slice number, row and column of a place given as voxel indices (i, j, k).

        Not rounded: whole numbers are the centres of slices and pixels.
        """
        at = voxel[::-1]
        rows, columns = self._plane

        def along(plane: PlaneAxis) -> float:
            last = self.array.shape[plane.axis] - 1
            return last - at[plane.axis] if plane.reverse else at[plane.axis]

        return at[self.axis], along(rows), along(columns)

    def voxel(self, number: float, row: float, column: float) -> tuple[float, float, float]:
        """The voxel indices (i, j, k) of a place on a slice; the way back from `place`."""
        at = [0.0, 0.0, 0.0]
        at[self.axis] = float(number)
        for plane, position in zip(self._plane, (row, column), strict=True):
            last = self.array.shape[plane.axis] - 1
            at[plane.axis] = float(last - position if plane.reverse else position)
        return at[2], at[1], at[0]

    @property
    def name(self) -> str:
        """The patient's name of the axis."""
        return axis_name(self.geometry, self.axis)

    @property
    def pixel_spacing(self) -> tuple[float, float]:
        """Millimetres between rows and between columns."""
        spacing = self.geometry.spacing[::-1]
        rows, columns = self._plane
        return float(spacing[rows.axis]), float(spacing[columns.axis])

    @cached_property
    def _plane(self) -> tuple[PlaneAxis, PlaneAxis]:
        return plane_axes(self.geometry, self.axis)


def widest_axis(geometry: Geometry) -> int | None:
    """Axis of the array with the largest spacing, or None where two or three share it."""
    spacing = np.asarray(geometry.spacing[::-1], dtype=float)
    widest = np.flatnonzero(spacing * _SAME_SPACING >= spacing.max())
    return int(widest[0]) if len(widest) == 1 else None


def suggest_axis(labelmap: Labelmap) -> str:
    """The axis along which a labelmap was most likely labelled slice by slice.

    That is the axis of the largest spacing, or that of a single slice; where spacings are equal,
    the one along which the labels skip the most slices.
    """
    axis = widest_axis(labelmap.geometry)
    if 1 in labelmap.array.shape:
        axis = labelmap.array.shape.index(1)
    if axis is None:
        axis = min(range(3), key=lambda each: _labelled_share(labelmap.array, each))
    return axis_name(labelmap.geometry, axis)


def sparser_axis(labelmap: Labelmap, name: str) -> str | None:
    """Another axis along which the labels lie on single slices, as they do not along `name`.

    None where there is none, so where the labels look as if they were drawn along `name`.
    """
    along = _labelled_share(labelmap.array, array_axis(labelmap.geometry, name))
    shares = {axis: _labelled_share(labelmap.array, axis) for axis in range(3)}
    sparsest = min(shares, key=lambda axis: shares[axis])
    is_sparse = shares[sparsest] <= _SPARSE and along > _DENSE
    return axis_name(labelmap.geometry, sparsest) if is_sparse else None


def _labelled_share(labels: np.ndarray, axis: int) -> float:
    """Labelled slices among those from the first to the last labelled one."""
    others = tuple(other for other in range(3) if other != axis)
    labelled = np.flatnonzero((labels > 0).any(axis=others))
    if not len(labelled):
        return 1.0
    return len(labelled) / float(labelled[-1] - labelled[0] + 1)
