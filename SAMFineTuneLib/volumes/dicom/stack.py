"""Puts DICOM planes in order and finds their grid, or reports why they do not lie on one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.dicom.header import Plane

# How far a slice may lie from its evenly spaced place, as a part of the slice spacing.
_UNEVEN = 0.1
# How far the slices may be shifted sideways altogether, in pixels.
_SHIFTED = 0.5
# How far direction cosines may differ between slices of one orientation.
_SAME_DIRECTION = 1e-3
# A slice is an overview and does not belong to the stack if the cosine of the angle between its
# normal and the stack's is below this.
_OTHER_WAY = 0.87
# How far pixel spacings may differ between slices, as a part of the spacing.
_SAME_SPACING = 1e-3
_SAME_PLACE_MM = 1e-3
_EXPORT_AGAIN = "Export the series again with all its slices"


@dataclass(frozen=True)
class Stack:
    """Planes that make one volume.

    Attributes:
        planes: the planes in the order of their places.
        geometry: geometry of the volume, as if no slice were shifted sideways.
        shear: how far each slice is shifted against the slice before, along a row and down a
            column, in mm; (0, 0) unless the scanner was tilted.
        remarks: what was assumed or left out, one sentence each.
    """

    planes: tuple[Plane, ...]
    geometry: Geometry
    shear: tuple[float, float]
    remarks: tuple[str, ...]


def arrange(where: Path, planes: Sequence[Plane]) -> Stack:
    """The volume that planes of one series make.

    Overviews (localizers) among them are left out.

    Args:
        where: the file or folder that messages name.
        planes: the planes, at least one.

    Raises:
        InputError: they make no volume; the message names a slice at fault and the reason.
    """
    kept, remarks = _without_localizers(planes)
    others = _single_other_orientations(kept)
    if others:
        rest = [each for each in kept if each not in others]
        try:
            stack = _arranged(where, rest)
        except InputError as error:
            raise _mixed(where, others[0]) from error
        return Stack(
            stack.planes,
            stack.geometry,
            stack.shear,
            (
                *remarks,
                _left_out(others, "has another orientation than the slices"),
                *stack.remarks,
            ),
        )
    stack = _arranged(where, kept)
    return Stack(stack.planes, stack.geometry, stack.shear, (*remarks, *stack.remarks))


def _without_localizers(planes: Sequence[Plane]) -> tuple[list[Plane], list[str]]:
    overviews = [each for each in planes if each.is_localizer]
    if not overviews or len(overviews) == len(planes):
        return list(planes), []
    rest = [each for each in planes if not each.is_localizer]
    return rest, [_left_out(overviews, "is an overview (localizer), no slice of the volume")]


def _left_out(planes: Sequence[Plane], reason: str) -> str:
    names = ", ".join(each.name for each in planes[:3]) + (", ..." if len(planes) > 3 else "")
    if len(planes) == 1:
        return f"{names} {reason}; it is left out"
    return f"{names}: each {reason}; they are left out"


def _single_other_orientations(planes: Sequence[Plane]) -> list[Plane]:
    """Planes whose orientation no other plane has and differs much from that of all others."""
    if len(planes) < 3 or any(each.orientation is None for each in planes):
        return []
    groups: list[list[Plane]] = []
    for each in planes:
        for group in groups:
            if _same_direction(group[0], each):
                group.append(each)
                break
        else:
            groups.append([each])
    groups.sort(key=len)
    main = groups.pop()
    if not groups or len(groups[-1]) > 1 or len(main) < 2:
        return []
    lone = [group[0] for group in groups]
    cosines = [abs(float(_normal_of(each) @ _normal_of(main[0]))) for each in lone]
    return lone if max(cosines) < _OTHER_WAY else []


def _arranged(where: Path, planes: Sequence[Plane]) -> Stack:
    first = planes[0]
    _require_alike(where, planes)
    remarks: list[str] = []
    if first.orientation is None and len(planes) > 1:
        remarks.append(
            f"{where.name} does not tell the orientation of its slices; they are taken as axial"
        )
    direction = _direction(first)
    positions, ordered, told = _places(where, planes, direction[:, 2])
    remarks += told
    spacing, told = _pixel_spacing(where, first)
    remarks += told
    step, shear = 1.0, (0.0, 0.0)
    if len(ordered) > 1:
        step, shear = _steps(where, ordered, positions @ direction, spacing)
    else:
        step = first.between or first.thickness or 1.0
    geometry = Geometry(
        (*first.size, len(ordered)),
        (*spacing, step),
        (float(positions[0][0]), float(positions[0][1]), float(positions[0][2])),
        tuple(direction.ravel().tolist()),
    )
    return Stack(tuple(ordered), geometry, shear, tuple(remarks))


def _require_alike(where: Path, planes: Sequence[Plane]) -> None:
    """Refuse planes of which one differs from the others in size, orientation or pixel spacing."""
    size, _ = Counter(each.size for each in planes).most_common(1)[0]
    for each in planes:
        if each.size != size:
            raise InputError(
                f"the images of the DICOM series in '{where}' differ in size: {each.name} has "
                f"{each.size[0]} x {each.size[1]} pixels, others {size[0]} x {size[1]}",
                "Put the files of one size into a folder of their own",
                code="damaged_image",
            )
    for what, lacking in (
        ("position", [each for each in planes if each.position is None]),
        ("orientation", [each for each in planes if each.orientation is None]),
    ):
        if 0 < len(lacking) < len(planes):
            raise InputError(
                f"{lacking[0].name} in '{where}' does not give its {what} (Image {what.title()} "
                "Patient), while other images of its series do",
                "Put the files that belong together into a folder of their own",
                code="uneven_slices",
            )
    typical = _most_common(planes)
    for each in planes:
        if not _same_direction(each, typical):
            raise _mixed(where, each)
        if not _same_spacing(each, typical):
            assert each.pixel_spacing is not None or typical.pixel_spacing is not None
            raise InputError(
                f"the images of the DICOM series in '{where}' differ in pixel spacing: {each.name} "
                f"has {_mm(each.pixel_spacing)}, others {_mm(typical.pixel_spacing)}",
                "Put the files of one spacing into a folder of their own",
                code="uneven_slices",
            )


def _most_common(planes: Sequence[Plane]) -> Plane:
    """A plane with the orientation and pixel spacing that most planes have."""
    kinds = Counter((_rounded(each.orientation), _rounded(each.pixel_spacing)) for each in planes)
    kind, _ = kinds.most_common(1)[0]
    return next(
        each
        for each in planes
        if (_rounded(each.orientation), _rounded(each.pixel_spacing)) == kind
    )


def _rounded(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(round(value, 3) for value in values)


def _same_direction(one: Plane, other: Plane) -> bool:
    if one.orientation is None or other.orientation is None:
        return one.orientation is other.orientation
    away = np.subtract(one.orientation, other.orientation)
    return bool(np.abs(away).max() <= _SAME_DIRECTION)


def _same_spacing(one: Plane, other: Plane) -> bool:
    if one.pixel_spacing is None or other.pixel_spacing is None:
        return one.pixel_spacing is other.pixel_spacing
    return bool(np.allclose(one.pixel_spacing, other.pixel_spacing, rtol=_SAME_SPACING, atol=0))


def _mixed(where: Path, plane: Plane) -> InputError:
    return InputError(
        f"the images of the DICOM series in '{where}' differ in orientation: {plane.name} is not "
        "parallel to the others",
        "Put the slices of one orientation into a folder of their own",
        code="uneven_slices",
    )


def _mm(spacing: tuple[float, float] | None) -> str:
    return "none" if spacing is None else f"{spacing[0]:.4g} x {spacing[1]:.4g} mm"


def _direction(plane: Plane) -> NDArray[np.float64]:
    """A 3 x 3 matrix of unit vectors in columns: along a row, down a column, and the normal."""
    if plane.orientation is None:
        return np.eye(3)
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    # Rounded cosines are not exactly perpendicular, which image formats require.
    return np.stack([row, np.cross(normal, row), normal], axis=1)


def _normal_of(plane: Plane) -> NDArray[np.float64]:
    normal: NDArray[np.float64] = _direction(plane)[:, 2]
    return normal


def _places(
    where: Path, planes: Sequence[Plane], normal: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[Plane], list[str]]:
    """The places (n, 3) in LPS, mm, by their order along the normal; the planes so; and remarks."""
    remarks: list[str] = []
    if all(each.position is not None for each in planes):
        places = np.array([each.position for each in planes], dtype=float)
    elif len(planes) == 1:
        places = np.zeros((1, 3))
    else:
        along, told = _places_along(planes)
        places = np.outer(along, normal)
        remarks = [f"{where.name} does not tell where its slices lie in the patient; {told}"]
    order = np.argsort(places @ normal, kind="stable")
    return places[order], [planes[index] for index in order], remarks


def _places_along(planes: Sequence[Plane]) -> tuple[NDArray[np.float64], str]:
    """The places along the normal, in mm, of planes without a position; and their source."""
    locations = [each.location for each in planes if each.location is not None]
    if len(locations) == len(planes) and len(set(locations)) > 1:
        return (
            np.array(locations),
            "they are placed by their slice location, and the volume lies elsewhere than it did",
        )
    by_number = sorted(range(len(planes)), key=lambda n: (planes[n].number, planes[n].frame or 0))
    rank = np.empty(len(planes))
    rank[by_number] = np.arange(len(planes))
    betweens = {each.between for each in planes}
    thicknesses = {each.thickness for each in planes}
    between = betweens.pop() if len(betweens) == 1 else None
    thickness = thicknesses.pop() if len(thicknesses) == 1 else None
    if between:
        reason = f"they are taken as {between:.4g} mm apart, their spacing between slices"
    elif thickness:
        reason = f"they are taken as {thickness:.4g} mm apart, their slice thickness"
    else:
        reason = "they are taken as 1 mm apart, because their spacing is not given"
    return rank * (between or thickness or 1.0), f"{reason}, in the order of their numbers"


def _pixel_spacing(where: Path, plane: Plane) -> tuple[tuple[float, float], list[str]]:
    if plane.pixel_spacing is None:
        return (1.0, 1.0), [
            f"{where.name} does not tell the spacing of its pixels; it is taken as 1 mm"
        ]
    if plane.at_detector:
        return plane.pixel_spacing, [
            f"{where.name} tells the spacing of its pixels at the detector "
            f"({_mm(plane.pixel_spacing)}), not in the patient; sizes in mm are too large by the "
            "magnification"
        ]
    return plane.pixel_spacing, []


def _steps(
    where: Path,
    planes: Sequence[Plane],
    away: NDArray[np.float64],
    spacing: tuple[float, float],
) -> tuple[float, tuple[float, float]]:
    """The distance of neighbouring slices, and how far each is shifted sideways.

    Args:
        where: the file or folder that messages name.
        planes: the planes in order.
        away: their places (n, 3) along a row, down a column and along the normal, in mm.
        spacing: spacing of the pixels.
    """
    away = away - away[0]
    gaps = np.diff(away[:, 2])
    numbers = np.arange(len(planes))
    if gaps.min() < _SAME_PLACE_MM:
        raise _repeated(where, planes, away, int(np.argmin(gaps)))
    step = float(away[-1, 2]) / len(gaps)
    typical = float(np.median(gaps))
    if np.abs(away[:, 2] - step * numbers).max() > max(_UNEVEN * min(step, typical), 0.01):
        raise _uneven(where, planes, gaps, typical)
    sideways = away[:, :2] / np.array(spacing)
    if np.abs(sideways).max() <= _SHIFTED:
        return step, (0.0, 0.0)
    straight = np.outer(numbers / numbers[-1], sideways[-1])
    off = np.abs(sideways - straight).max(axis=1)
    if off.max() > _SHIFTED:
        raise InputError(
            f"the slices of the DICOM series in '{where}' are shifted sideways against each other "
            f"by different amounts: {planes[int(off.argmax())].name} lies "
            f"{off.max():.1f} pixels off the line through the first and the last",
            "Put the slices that belong together into a folder of their own",
            code="uneven_slices",
        )
    shear = away[-1, :2] / len(gaps)
    return step, (float(shear[0]), float(shear[1]))


def _repeated(
    where: Path, planes: Sequence[Plane], away: NDArray[np.float64], at: int
) -> InputError:
    one, other = planes[at], planes[at + 1]
    if one.identifier == other.identifier and one.frame == other.frame:
        return InputError(
            f"the DICOM series in '{where}' has the same image twice, in {one.name} and "
            f"{other.name}",
            "Remove one of the two files",
            code="not_3d",
        )
    if np.linalg.norm(away[at, :2] - away[at + 1, :2]) > 1.0:
        # They are in one plane but at different places: slices of a sweep, or tiles.
        what = "side by side in one plane"
    else:
        what = "at one place (a time series or several echoes)"
    differing = [
        f"{name} {one.phase[name]} and {other.phase[name]}"
        for name in one.phase
        if name in other.phase and one.phase[name] != other.phase[name]
    ]
    told = f"; {differing[0]}" if differing else ""
    return InputError(
        f"the DICOM series in '{where}' has several images {what}: {one.name} and {other.name}"
        f"{told}",
        "Export one time point or echo as a volume of its own",
        code="not_3d",
    )


def _uneven(
    where: Path, planes: Sequence[Plane], gaps: NDArray[np.float64], typical: float
) -> InputError:
    worst = int(np.abs(gaps - typical).argmax())
    gap = float(gaps[worst])
    missing = round(gap / typical) - 1
    if missing >= 1 and abs(gap / typical - missing - 1) < 2 * _UNEVEN:
        slices = "one slice is" if missing == 1 else f"{missing} slices are"
        reason = f"{slices} missing there"
    else:
        reason = "slices are missing or overlap"
    wide = int((np.abs(gaps - typical) > _UNEVEN * typical).sum())
    more = f", and {wide - 1} more gaps differ" if wide > 1 else ""
    return InputError(
        f"the slices of the DICOM series in '{where}' are not evenly spaced: from "
        f"{planes[worst].name} to {planes[worst + 1].name} it is {gap:.2f} mm, and "
        f"{typical:.2f} mm between others{more}; {reason}",
        f"{_EXPORT_AGAIN}, or resample it in 3D Slicer",
        code="uneven_slices",
    )
