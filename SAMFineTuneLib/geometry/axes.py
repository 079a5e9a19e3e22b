"""The names of slice axes, the array axes they stand for, and how slices are oriented."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from SAMFineTuneLib.geometry.grid import Geometry

AXIS_NAMES = ("axial", "coronal", "sagittal")

# The patient direction (LPS) along which slices of each name are stacked.
_STACKING = {"sagittal": 0, "coronal": 1, "axial": 2}

# For each name, the patient direction in which row numbers rise, and its sign; then for columns.
_ROWS = {"axial": (1, 1), "coronal": (2, -1), "sagittal": (2, -1)}
_COLUMNS = {"axial": (0, 1), "coronal": (0, 1), "sagittal": (1, 1)}


class PlaneAxis(NamedTuple):
    """The array axis (k, j, i) along a slice's rows or columns, and whether it is reversed."""

    axis: int
    reverse: bool


def array_axis(geometry: Geometry, name: str) -> int:
    """The axis of the (k, j, i) array along which slices called `name` are stacked.

    An oblique volume has no exact axial plane. Each of its three axes gets the name of the nearest
    patient direction, and every name is used once.
    """
    return 2 - _index_axes(geometry)[_STACKING[name]]


def axis_name(geometry: Geometry, axis: int) -> str:
    """The name of the slices that are stacked along `axis` of the (k, j, i) array."""
    return next(name for name in AXIS_NAMES if array_axis(geometry, name) == axis)


def plane_axes(geometry: Geometry, axis: int) -> tuple[PlaneAxis, PlaneAxis]:
    """How slices that are stacked along `axis` are oriented: along rows, and along columns.

    They are oriented as radiologists view them: the patient's right is at the left; the front is at
    the top of an axial slice, the head at the top of the others, and the front at the left of a
    sagittal one.
    """
    index_axes = _index_axes(geometry)
    direction = np.asarray(geometry.direction, dtype=float).reshape(3, 3)
    name = axis_name(geometry, axis)

    def along(patient: int, sense: int) -> PlaneAxis:
        index = index_axes[patient]
        return PlaneAxis(2 - index, bool(direction[patient, index] * sense < 0))

    return along(*_ROWS[name]), along(*_COLUMNS[name])


def _index_axes(geometry: Geometry) -> dict[int, int]:
    """Patient direction (0 L, 1 P, 2 S) -> index axis (0 i, 1 j, 2 k), one to one."""
    weights = np.abs(np.asarray(geometry.direction, dtype=float).reshape(3, 3))
    pairs: dict[int, int] = {}
    for _ in range(3):
        patient, index = np.unravel_index(int(np.argmax(weights)), weights.shape)
        pairs[int(patient)] = int(index)
        weights[patient, :] = -1
        weights[:, index] = -1
    return pairs
