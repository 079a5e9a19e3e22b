"""Resamples the slices of a tilted scanner, each shifted sideways, onto a straight grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.image_grid import placed


def tilt_degrees(shear: tuple[float, float], step: float) -> float:
    """The tilt of the stack, from the shift of each slice and the distance of slices, in mm."""
    return math.degrees(math.atan2(math.hypot(*shear), step))


def straightened(
    array: NDArray[Any], geometry: Geometry, shear: tuple[float, float]
) -> tuple[NDArray[Any], Geometry]:
    """The image on a grid whose axes are perpendicular.

    Slices keep their places along the normal, so that each is interpolated (linearly) only within
    its own plane. The grid is enlarged to hold all slices; voxels that no slice covers get the
    lowest value.

    Args:
        array: voxels (k, j, i).
        geometry: the grid of the first slice, with the distance of slices.
        shear: by how many mm each slice is shifted along i and j against the slice before.
    """
    direction = np.array(geometry.direction).reshape(3, 3)
    step = np.array([*shear, geometry.spacing[2]])
    leaning = direction.copy()
    leaning[:, 2] = direction @ step / np.linalg.norm(step)
    sheared = sitk.GetImageFromArray(array.astype(np.float32, copy=False))
    sheared.SetOrigin(geometry.origin)
    sheared.SetSpacing((*geometry.spacing[:2], float(np.linalg.norm(step))))
    sheared.SetDirection(leaning.ravel().tolist())

    grid = _grid_around(geometry, shear)
    straight = sitk.Image(grid.size, sitk.sitkFloat32)
    placed(straight, grid)
    found = sitk.GetArrayFromImage(
        sitk.Resample(
            sheared,
            straight,
            sitk.Transform(),
            sitk.sitkLinear,
            float(array.min()),
            sitk.sitkFloat32,
        )
    )
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        found = np.clip(np.rint(found), limits.min, limits.max)
    return found.astype(array.dtype, copy=False), grid


def _grid_around(geometry: Geometry, shear: tuple[float, float]) -> Geometry:
    """The straight grid that holds all slices; its voxels include those of the first slice."""
    size, origin = list(geometry.size), np.array(geometry.origin, dtype=float)
    direction = np.array(geometry.direction).reshape(3, 3)
    for axis, each in enumerate(shear):
        pixels = each * (geometry.size[2] - 1) / geometry.spacing[axis]
        # The small tolerance keeps rounding errors from adding a pixel.
        more = math.ceil(abs(pixels) - 1e-3)
        size[axis] += more
        if pixels < 0:
            origin -= direction[:, axis] * geometry.spacing[axis] * more
    return Geometry(
        (size[0], size[1], size[2]),
        geometry.spacing,
        (float(origin[0]), float(origin[1]), float(origin[2])),
        geometry.direction,
    )
