"""Finds the grid on which the frames of a DICOM segmentation object lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry

# How far a frame may lie from its evenly spaced place, as a part of the spacing of the planes.
_UNEVEN = 0.1
# The limit if the spacing is only a part of every gap; a small part would fit nearly any gaps.
_UNEVEN_PART = 0.01
# Frames closer to each other than this, in mm, lie on one plane.
_ONE_PLANE = 1e-2
# How far frames may be rotated against each other: length of the difference of unit vectors.
_TURNED = 1e-3
# How far a frame may lie off whole pixels without a remark, in pixels.
_BESIDE_PIXEL = 0.1
# More planes than any scanner makes; if there would be more, the positions are wrong.
_MOST_PLANES = 20_000


class FramePlace(NamedTuple):
    """The place of a frame by its own description.

    Attributes:
        position: centre of its first pixel in LPS, mm.
        orientation: the directions of its rows and of its columns in LPS, six numbers.
        pixel_spacing: distance between rows and between columns, in mm.
        between: distance between the planes in mm, if the file gives it.
        thickness: thickness of the plane in mm, if the file gives it.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    between: float | None
    thickness: float | None


@dataclass(frozen=True)
class FrameGrid:
    """The grid of all frames, and the place of each in it.

    Attributes:
        geometry: the grid; its planes are those of the frames, by rising position.
        corners: for each frame the index (k, j, i) of its first pixel.
        remarks: what the user should know, one sentence each.
    """

    geometry: Geometry
    corners: list[tuple[int, int, int]]
    remarks: tuple[str, ...]


def grid_of(
    path: Path,
    places: Sequence[FramePlace],
    rows: int,
    columns: int,
    over: Geometry | None = None,
) -> FrameGrid:
    """The grid on which frames lie; frames may be in any order, and planes may have none.

    Args:
        path: the file, for messages.
        places: the place of each frame, at least one.
        rows: number of rows of a frame.
        columns: number of columns of a frame.
        over: the grid of the image, which gives the spacing of the planes if the frames do not.

    Raises:
        InputError: the frames do not lie on one grid.
    """
    first = places[0]
    _check_one_orientation(path, places)
    row, column, normal = _axes(path, first)
    spacing = _pixel_spacing(path, places)
    positions = np.array([place.position for place in places])
    away = (positions - positions[0]) @ normal
    planes, step, remark = _planes(path, first, away, _spacing_along(over, normal))
    shifts = np.stack(
        [(positions - positions[0]) @ column / spacing[0],
         (positions - positions[0]) @ row / spacing[1]], axis=1
    )  # fmt: skip
    whole = np.rint(shifts)
    remarks = [remark] if remark else []
    if np.abs(shifts - whole).max() > _BESIDE_PIXEL:
        remarks.append(
            f"the frames of {path.name} are shifted against each other by parts of a pixel; each "
            "was moved to the nearest whole one"
        )
    low = whole.min(axis=0)
    extent = whole.max(axis=0) - low
    size = (int(columns + extent[1]), int(rows + extent[0]), int(planes.max()) + 1)
    start = int(np.argmin(planes))
    # The origin keeps the exact position of a frame on the first plane.
    origin = (
        positions[start]
        + (low[0] - shifts[start, 0]) * spacing[0] * column
        + (low[1] - shifts[start, 1]) * spacing[1] * row
    )
    direction = np.stack([row, column, normal], axis=1)
    geometry = Geometry(
        size,
        (spacing[1], spacing[0], step),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(value) for value in direction.ravel()),  # type: ignore[arg-type]
    )
    corners = [(int(k), int(j), int(i)) for k, (j, i) in zip(planes, whole - low, strict=True)]
    return FrameGrid(geometry, corners, tuple(remarks))


def _check_one_orientation(path: Path, places: Sequence[FramePlace]) -> None:
    first = np.array(places[0].orientation)
    for number, place in enumerate(places):
        if np.abs(np.array(place.orientation) - first).max() > _TURNED:
            raise InputError(
                f"the frames of '{path}' are not parallel: frame {number + 1} is turned against "
                "the first one",
                "Export the segmentation again for one series of parallel slices",
                code="not_3d",
            )


def _axes(
    path: Path, place: FramePlace
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    row, column = np.array(place.orientation[:3]), np.array(place.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        raise InputError(
            f"the DICOM file '{path}' is damaged: the directions of its rows and columns are not "
            "perpendicular unit vectors",
            "Export it again from the program that wrote it",
            code="damaged_image",
        )
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    row = row / lengths[0]
    return row, np.cross(normal, row), normal


def _pixel_spacing(path: Path, places: Sequence[FramePlace]) -> tuple[float, float]:
    spacings = np.array([place.pixel_spacing for place in places])
    if not np.isfinite(spacings).all() or (spacings <= 0).any():
        raise InputError(
            f"the DICOM file '{path}' is damaged: its pixels have no size",
            "Export it again from the program that wrote it",
            code="damaged_image",
        )
    if np.ptp(spacings, axis=0).max() > 1e-3 * spacings.min():
        raise InputError(
            f"the frames of '{path}' have pixels of different sizes",
            "Export the segmentation again for one series of slices",
            code="not_3d",
        )
    return float(spacings[0, 0]), float(spacings[0, 1])


def _spacing_along(over: Geometry | None, normal: NDArray[np.float64]) -> float | None:
    """The image's voxel spacing along a direction; None if none of its axes has this direction."""
    if over is None:
        return None
    along = np.abs(np.array(over.direction).reshape(3, 3).T @ normal)
    axis = int(along.argmax())
    return float(over.spacing[axis]) if along[axis] > 1 - _TURNED else None


def _planes(
    path: Path, first: FramePlace, away: NDArray[np.float64], expected: float | None
) -> tuple[NDArray[np.int64], float, str]:
    """The number of each frame's plane, the spacing of the planes, and a remark or "".

    Planes without a frame are empty. The spacing is that of the file or of the image if it fits the
    positions, otherwise the largest one that fits.
    """
    order = np.argsort(away, kind="stable")
    steps = np.diff(away[order])
    new = steps > _ONE_PLANE
    gaps = steps[new]
    if not gaps.size:
        told = [each for each in (first.between, expected, first.thickness) if each and each > 0]
        remark = "" if told else f"{path.name} does not tell how thick its only plane is: 1 mm"
        return np.zeros(len(away), np.int64), told[0] if told else 1.0, remark
    smallest = float(gaps.min())
    whole = [(step, _UNEVEN) for step in (first.between, expected, smallest)]
    parts = [(smallest / 2, _UNEVEN_PART), (smallest / 3, _UNEVEN_PART)]
    for step, tolerance in (*whole, *parts):
        if step is None or not step > 0:
            continue
        numbers = np.concatenate([[0], np.cumsum(np.rint(gaps / step))])
        if (np.rint(gaps / step) < 1).any():
            continue
        true = np.concatenate([[0.0], np.cumsum(gaps)])
        fitted = float(numbers @ true / (numbers @ numbers))
        if np.abs(true - fitted * numbers).max() <= tolerance * fitted:
            # The given spacing is kept if it places every plane within a micrometre.
            fitted = step if abs(step - fitted) * numbers[-1] < 1e-3 else fitted
            break
    else:
        raise InputError(
            f"the frames of '{path}' are not evenly spaced: the gaps go from {gaps.min():.2f} to "
            f"{gaps.max():.2f} mm",
            "Export the segmentation again for one series of evenly spaced slices",
            code="uneven_slices",
        )
    if numbers[-1] > _MOST_PLANES:
        raise InputError(
            f"the DICOM file '{path}' is damaged: its frames lie {true[-1]:.0f} mm apart",
            "Export it again from the program that wrote it",
            code="damaged_image",
        )
    ordered = numbers[np.concatenate([[0], np.cumsum(new)])].astype(np.int64)
    planes = np.empty(len(away), np.int64)
    planes[order] = ordered
    return planes, fitted, _spacing_remark(path, first, step, fitted, expected)


def _spacing_remark(
    path: Path, first: FramePlace, step: float, fitted: float, expected: float | None
) -> str:
    told = first.between or expected
    if told is not None and step == told:
        return ""
    thin = first.thickness is not None and 0 < first.thickness < 0.75 * fitted
    if told is None and not thin:
        return ""
    return (
        f"the planes of {path.name} are taken to lie {fitted:.4g} mm apart, as its frames do; it "
        f"tells {told or first.thickness:.4g} mm"
    )
