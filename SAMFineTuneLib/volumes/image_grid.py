"""Converts between the grid of a SimpleITK image and `Geometry`."""

from __future__ import annotations

import SimpleITK as sitk

from SAMFineTuneLib.geometry.grid import Geometry


def grid_of(image: sitk.Image) -> Geometry:
    """Geometry of a 3-D SimpleITK image.

    Raises:
        ValueError: the image has another number of dimensions.
    """
    if image.GetDimension() != 3:
        raise ValueError(f"a 3-D image is needed, not one of {image.GetDimension()} dimensions")
    return Geometry(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def placed(image: sitk.Image, geometry: Geometry) -> sitk.Image:
    """Gives `image` this geometry (in place) and returns it."""
    image.SetSpacing([float(value) for value in geometry.spacing])
    image.SetOrigin([float(value) for value in geometry.origin])
    image.SetDirection([float(value) for value in geometry.direction])
    return image
