"""Checks before the work whether an image format can hold a geometry."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import ON_GRID, Geometry, farthest_move
from SAMFineTuneLib.image_endings import IMAGE_ENDINGS, PICTURE_ENDINGS, image_ending
from SAMFineTuneLib.volumes.image_grid import grid_of
from SAMFineTuneLib.volumes.pictures.fitting import picture_obstacle
from SAMFineTuneLib.volumes.quiet import itk_quiet

# How far a corner of the image may lie from its place, in voxels. Single precision, in which NIfTI
# stores its numbers, causes errors of some 0.0001 voxels in common images; labels that are off by
# twice this limit are still matched with their volume voxel by voxel.
TOLERANCE = ON_GRID / 2

# A NIfTI-1 header stores the number of voxels along an axis as a signed 16-bit number.
_LONGEST_NIFTI_AXIS = (1 << 15) - 1


def require_holdable(path: str | os.PathLike[str], geometry: Geometry) -> None:
    """Check that the format of a file can hold a geometry.

    Args:
        path: the file to be written; its ending gives the format. Unknown formats are not checked.
        geometry: geometry of the image that is to be written.

    Raises:
        InputError: the format cannot hold it; the remedy names formats that can.
    """
    path = Path(path)
    suffix = image_ending(path)
    if suffix is None:
        return
    obstacle = _obstacle(suffix, geometry)
    if obstacle:
        others = [each for each in IMAGE_ENDINGS if not _obstacle(each, geometry)]
        raise InputError(
            f"'{path.name}' cannot hold the image: {obstacle}",
            "End the file's name in " + ", ".join(others)
            if others
            else "Resample the volume in 3D Slicer (Resample Scalar Volume) first",
            code="geometry_not_held",
        )


def can_hold(path: str | os.PathLike[str], geometry: Geometry) -> bool:
    """Whether a file of this name can hold the geometry; True for unknown formats."""
    suffix = image_ending(Path(path))
    return suffix is None or not _obstacle(suffix, geometry)


def _obstacle(suffix: str, geometry: Geometry) -> str:
    """Why a format cannot hold a geometry; "" if it can."""
    if suffix in PICTURE_ENDINGS:
        return picture_obstacle(geometry)
    if suffix in (".nii", ".nii.gz") and max(geometry.size) > _LONGEST_NIFTI_AXIS:
        return f"NIfTI has at most {_LONGEST_NIFTI_AXIS} voxels along an axis"
    kept = _of_one_voxel(suffix, geometry.spacing, geometry.origin, geometry.direction)
    name = {".nii": "NIfTI", ".nii.gz": "NIfTI"}.get(suffix, suffix)
    if kept is None:
        return f"{name} has no place for such axes"
    held = replace(kept, size=geometry.size)
    if farthest_move(geometry, held) <= TOLERANCE:
        return ""
    away = _distance(geometry, held)
    if not geometry.is_perpendicular:
        return (
            f"the volume's axes are not perpendicular to each other (it is sheared), and {name} "
            f"would put voxels up to {away:.3g} mm off"
        )
    return f"{name} keeps too few digits for its place, and voxels would lie {away:.3g} mm off"


@lru_cache(maxsize=256)
def _of_one_voxel(
    suffix: str,
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    direction: tuple[float, ...],
) -> Geometry | None:
    """The geometry that is read back from a file of one voxel; None if it cannot be written."""
    image = sitk.Image(1, 1, 1, sitk.sitkUInt8)
    with tempfile.TemporaryDirectory() as folder, itk_quiet():
        file = str(Path(folder) / f"voxel{suffix}")
        try:
            image.SetSpacing(spacing)
            image.SetOrigin(origin)
            image.SetDirection(direction)
            sitk.WriteImage(image, file)
            back = sitk.ReadImage(file)
        except RuntimeError:
            return None
    return grid_of(back)


def _distance(geometry: Geometry, held: Geometry) -> float:
    moved = (held.affine - geometry.affine) @ geometry.corners.T
    return float(np.linalg.norm(moved[:3], axis=0).max())
