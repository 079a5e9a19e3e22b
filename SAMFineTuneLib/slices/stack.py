"""A volume as a stack of slices along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from SAMFineTuneLib.geometry.axes import PlaneAxis, array_axis, axis_name, plane_axes
from SAMFineTuneLib.geometry.bounding_box import occupied_slices
from SAMFineTuneLib.geometry.drawn_axis import drawn_axis, sparser_axis
from SAMFineTuneLib.volumes import Geometry, Labelmap, Volume


@dataclass(frozen=True)
class SliceStack:
    """The slices of one array along one of its axes, in the volume's own index order.

    Each slice is turned according to `plane_axes`, so that a structure looks the same to a network
    however a file stores its axes.

    Args:
        array: (k, j, i) voxels, or (k, j, i, channels).
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
        """Slice `number` as (rows, columns) or (rows, columns, channels), a view of the volume."""
        rows, columns = self._plane
        channels = range(3, self.array.ndim)
        turned = self.array.transpose(self.axis, rows.axis, columns.axis, *channels)
        pixels: np.ndarray = turned[number]
        return pixels[:: -1 if rows.reverse else 1, :: -1 if columns.reverse else 1]

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Rows and columns of every slice."""
        rows, columns = self._plane
        return int(self.array.shape[rows.axis]), int(self.array.shape[columns.axis])

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
        """The anatomical name of the axis."""
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


def suggest_axis(labelmap: Labelmap) -> str:
    """The axis along which a labelmap was most likely labelled slice by slice; see `drawn_axis`."""
    geometry = labelmap.geometry
    axis = drawn_axis(
        occupied_slices(labelmap.array > 0),
        geometry.shape,
        geometry.spacing[::-1],
        array_axis(geometry, "axial"),
    )
    return axis_name(geometry, axis)


def drawn_instead(labelmap: Labelmap, name: str) -> str | None:
    """Another axis along which the labels lie on single slices, as they do not along `name`.

    None where there is none, so where the labels look as if they were drawn along `name`.
    """
    occupied = occupied_slices(labelmap.array > 0)
    axis = sparser_axis(occupied, array_axis(labelmap.geometry, name))
    return None if axis is None else axis_name(labelmap.geometry, axis)
