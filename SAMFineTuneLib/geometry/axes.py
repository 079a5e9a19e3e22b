"""Which axis of a volume's array the slices are cut along."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from SAMFineTuneLib.geometry.grid import Geometry

AXIS_NAMES = ("axial", "coronal", "sagittal")

# Patient direction (LPS) along which slices of each name are stacked.
_STACKING = {"sagittal": 0, "coronal": 1, "axial": 2}

# Patient direction along which rows, and columns, of a slice follow each other, and its sense.
_ROWS = {"axial": (1, 1), "coronal": (2, -1), "sagittal": (2, -1)}
_COLUMNS = {"axial": (0, 1), "coronal": (0, 1), "sagittal": (1, 1)}


class PlaneAxis(NamedTuple):
    """Axis of the (k, j, i) array along a slice's rows or columns, and whether it is reversed."""

    axis: int
    reverse: bool


def array_axis(geometry: Geometry, name: str) -> int:
    """Axis of the (k, j, i) array along which slices called `name` are stacked.

    An oblique volume has no exact axial plane: each of its three axes gets the name of the
    patient direction it is nearest to, every name used once.
    """
    return 2 - _index_axes(geometry)[_STACKING[name]]


def axis_name(geometry: Geometry, axis: int) -> str:
    """Name of the slices stacked along `axis` of the (k, j, i) array."""
    return next(name for name in AXIS_NAMES if array_axis(geometry, name) == axis)


def plane_axes(geometry: Geometry, axis: int) -> tuple[PlaneAxis, PlaneAxis]:
    """How slices stacked along `axis` are turned, along rows and along columns.

    As images are looked at: the patient's right at the left; the front at the top of an axial
    slice, the head at the top of the others, the front at the left of a sagittal one.
    """
    index_axes = _index_axes(geometry)
    direction = np.asarray(geometry.direction, dtype=float).reshape(3, 3)
    name = axis_name(geometry, axis)

    def along(patient: int, sense: int) -> PlaneAxis:
        index = index_axes[patient]
        return PlaneAxis(2 - index, bool(direction[patient, index] * sense < 0))

    return along(*_ROWS[name]), along(*_COLUMNS[name])


def _index_axes(geometry: Geometry) -> dict[int, int]:
    """Patient direction (0 L, 1 P, 2 S) -> index axis (0 i, 1 j, 2 k), a bijection."""
    weights = np.abs(np.asarray(geometry.direction, dtype=float).reshape(3, 3))
    pairs: dict[int, int] = {}
    for _ in range(3):
        patient, index = np.unravel_index(int(np.argmax(weights)), weights.shape)
        pairs[int(patient)] = int(index)
        weights[patient, :] = -1
        weights[:, index] = -1
    return pairs
