"""Converts between the grid of a SimpleITK image and `Geometry`, and resamples between grids."""

from __future__ import annotations

from typing import Any

import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.grid import Geometry


def grid_of(image: sitk.Image) -> Geometry:
    """Geometry of a 3-D SimpleITK image.

    Raises:
        ValueError: the image has another number of dimensions.
    """
    if image.GetDimension() != 3:
        raise ValueError(f"a 3-D image is needed, not one of {image.GetDimension()} dimensions")
    return Geometry(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def resampled(
    array: NDArray[Any],
    source: Geometry,
    target: Geometry,
    interpolator: int = sitk.sitkNearestNeighbor,
    outside: float = 0.0,
) -> NDArray[Any]:
    """An array (k, j, i) on another grid, sampled at the centre of each of its voxels.

    Args:
        array: voxels.
        source: their grid.
        target: the grid to sample on.
        interpolator: one of SimpleITK's.
        outside: the value beyond the source.
    """
    resample = sitk.ResampleImageFilter()
    resample.SetInterpolator(interpolator)
    resample.SetSize(list(target.size))
    resample.SetOutputSpacing(list(target.spacing))
    resample.SetOutputOrigin(list(target.origin))
    resample.SetOutputDirection(list(target.direction))
    resample.SetDefaultPixelValue(outside)
    image = resample.Execute(placed(sitk.GetImageFromArray(array), source))
    found: NDArray[Any] = sitk.GetArrayFromImage(image)
    return found


def placed(image: sitk.Image, geometry: Geometry) -> sitk.Image:
    """Gives `image` this geometry (in place) and returns it."""
    image.SetSpacing([float(value) for value in geometry.spacing])
    image.SetOrigin([float(value) for value in geometry.origin])
    image.SetDirection([float(value) for value in geometry.direction])
    return image
