"""Decides where the voxels of a NIfTI file lie, with remarks if its header is ambiguous.

If qform and sform contradict each other, the same one is used as in 3D Slicer and ITK: the sform if
its axes are perpendicular and its code says "scanner", otherwise the qform. Labels that were drawn
in 3D Slicer on such a volume then lie where they were drawn. The other place is kept too, because
programs that prefer the sform (nibabel, FSL, SPM) save their results there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import ON_GRID, Geometry, farthest_move
from SAMFineTuneLib.geometry.nifti_forms import Affine, NiftiForms

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

_SCANNER = 1

# The largest error of lengths and right angles of a matrix in single precision.
_PRECISION = 1e-3


class Place(NamedTuple):
    """Where the voxels lie.

    Attributes:
        geometry: the grid.
        remarks: what the user should know of the choice, one sentence each.
    """

    geometry: Geometry
    remarks: tuple[str, ...]


def nifti_place(path: Path, forms: NiftiForms) -> Place:
    """The place of the voxels of the file `path`, whose header has these forms.

    Raises:
        InputError: the only form that the header names is invalid.
    """
    found = _found(path, forms)
    if forms.thickness_told or forms.size[2] > 1:
        return found
    remark = (
        f"{path.name} does not say how thick its slice is; {_number(forms.filled_spacing[2])} mm "
        "is taken"
    )
    return Place(found.geometry, (*found.remarks, remark))


def _found(path: Path, forms: NiftiForms) -> Place:
    qform, sform = forms.qform, forms.sform
    if qform is not None and sform is not None:
        return _by_two(path, forms, qform, sform)
    affine = qform if sform is None else sform
    if affine is not None:
        return _by_one(path, forms, affine)
    if forms.qform_code <= 0 and forms.sform_code <= 0:
        return _without_form(path, forms)
    raise InputError(
        f"the header of '{path}' gives its voxels no place in space: its "
        f"{'sform' if forms.sform_code > 0 else 'qform'} holds NaN or infinity, or axes that lie "
        "in one plane",
        "Export the image again from the program that it comes from",
        code="damaged_image",
    )


def _without_form(path: Path, forms: NiftiForms) -> Place:
    steps = np.array([*forms.filled_spacing, 1.0])
    as_slicer = _geometry(forms, _RAS_TO_LPS * steps)
    # nibabel places such a file with its centre at the origin and the first axis to the left.
    centred = np.diag(steps) @ np.diag([-1.0, 1.0, 1.0, 1.0])
    centred[:3, 3] = -centred[:3, :3] @ ((np.array(forms.size) - 1) / 2)
    remark = (
        f"{path.name} does not say where its image lies in the patient (neither sform nor qform); "
        "its place, and which side is left, are taken as 3D Slicer takes them"
    )
    other = _geometry(forms, centred)
    return Place(replace(as_slicer, others=(other,), forms=forms), (remark,))


def _by_one(path: Path, forms: NiftiForms, affine: Affine) -> Place:
    geometry = _geometry(forms, affine)
    if not geometry.is_perpendicular:
        remark = (
            f"the axes of {path.name} are not perpendicular to each other (sheared by its sform); "
            "they are used as they are; programs that cannot use such axes may refuse the file or "
            "straighten them"
        )
        return Place(geometry, (remark,))
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    stretched = affine.copy()
    stretched[:3, :3] *= forms.filled_spacing / lengths
    by_pixdim = _geometry(forms, stretched)
    if all(forms.spacing) and farthest_move(geometry, by_pixdim) > ON_GRID:
        remark = (
            f"{path.name} gives two spacings: {_numbers(lengths)} mm by its sform, which is used, "
            f"and {_numbers(forms.spacing)} mm by its pixdim, which 3D Slicer uses"
        )
        return Place(replace(geometry, others=(by_pixdim,), forms=forms), (remark,))
    return Place(geometry, ())


def _by_two(path: Path, forms: NiftiForms, qform: Affine, sform: Affine) -> Place:
    by_qform, by_sform = _geometry(forms, qform), _geometry(forms, sform)
    rigid = by_sform.is_perpendicular and _same_lengths(by_sform, by_qform)
    if farthest_move(by_qform, by_sform) <= ON_GRID:
        return Place(by_sform if rigid else by_qform, ())
    if rigid and forms.sform_code == _SCANNER:
        used, other, names = by_sform, by_qform, ("sform", "qform")
    else:
        used, other, names = by_qform, by_sform, ("qform", "sform")
    remark = (
        f"{path.name} gives its image two places, by its sform and by its qform, "
        f"{_angle(used, other):.1f} degrees and up to {_distance(used, other):.1f} mm apart; the "
        f"{names[0]} is used, as in 3D Slicer, and other programs may use the {names[1]}"
    )
    return Place(replace(used, others=(other,), forms=forms), (remark,))


def _geometry(forms: NiftiForms, ras: Affine) -> Geometry:
    return Geometry.from_affine(forms.size, _RAS_TO_LPS @ ras)


def _same_lengths(one: Geometry, other: Geometry) -> bool:
    return bool(np.allclose(one.spacing, other.spacing, rtol=_PRECISION, atol=_PRECISION))


def _angle(one: Geometry, other: Geometry) -> float:
    """The largest angle between axes of the same index, in degrees."""
    first, second = (np.reshape(each.direction, (3, 3)) for each in (one, other))
    cosines = np.clip((first * second).sum(axis=0), -1.0, 1.0)
    return float(np.degrees(np.arccos(cosines.min())))


def _distance(one: Geometry, other: Geometry) -> float:
    """The largest distance between the same corner voxel by both grids, in mm."""
    moved = (one.affine - other.affine) @ one.corners.T
    return float(np.linalg.norm(moved[:3], axis=0).max())


def _numbers(values: object) -> str:
    return " x ".join(_number(value) for value in np.ravel(np.asarray(values, dtype=float)))


def _number(value: float) -> str:
    return f"{value:.4g}"
