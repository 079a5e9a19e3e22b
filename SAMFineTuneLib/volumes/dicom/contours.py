"""Reads contours of DICOM RT structure sets (RTSTRUCT) as labelmaps.

The contours are filled by this project's own code (`polygon_fill`), because the libraries that fill
contours draw with whole pixels, need the image's DICOM files, or are no longer maintained.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.geometry.polygon_fill import filled
from SAMFineTuneLib.volumes.dicom.dataset import damaged_if_it_fails, read_dataset
from SAMFineTuneLib.volumes.labelmap import Colour, Labelmap, present_labels
from SAMFineTuneLib.volumes.segment_overlaps import Part, Segment, flattened

# The types of contours that enclose an area; points and open lines do not.
_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}

# How far the points of a contour may spread along the normal of its slice, in slices.
_FLAT = 0.1
# How far a contour may lie off its slice without a remark, in slices.
_BESIDE = 0.1
# Contours closer to each other than this, in slices, lie on one plane.
_ONE_PLANE = 0.02

_LARGEST = np.iinfo(np.int32).max


@dataclass
class _Structure:
    """A region of interest (ROI).

    Attributes:
        name: its name, "" if the file gives none.
        colour: its colour, if the file gives one.
        contours: the closed contours, each as points in LPS, shape (points, 3), mm.
        others: how many contours are points or open lines, which enclose nothing.
    """

    name: str = ""
    colour: Colour | None = None
    contours: list[NDArray[np.float64]] = field(default_factory=list)
    others: int = 0


@dataclass
class _Plane:
    """Contours that were drawn on one plane.

    Attributes:
        axis: the axis of the grid that is perpendicular to the plane: 0, 1, 2 for i, j, k.
        place: the position on that axis in voxels; whole numbers are slices.
        contours: points in voxels (i, j, k), shape (points, 3).
    """

    axis: int
    place: float
    contours: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def slice(self) -> int:
        """The nearest slice."""
        return int(np.floor(self.place + 0.5))

    @property
    def beside(self) -> float:
        """How far the plane lies from the nearest slice, in slices."""
        return abs(self.place - self.slice)


@dataclass
class _Tally:
    """Counts, over all structures, of planes and contours that could not be used as they are."""

    outside: int = 0
    crowded: int = 0
    repeated: int = 0
    farthest: float = 0.0


def read_contours(
    path: Path,
    over: Geometry | None,
    wanted: Collection[int] | None = None,
    on_top: Sequence[str] = (),
) -> Labelmap:
    """The labelmap of an RT structure set, on the slices on which its contours were drawn.

    A voxel belongs to a structure if its centre lies inside an odd number of the structure's
    contours on the slice, so that holes stay empty. A contour between two slices counts for the
    nearer one. The labels are the numbers of the regions of interest (ROI).

    Args:
        path: the file.
        over: grid of the image on which the contours were drawn; contours have no grid.
        wanted: the structures to read, by number; None reads all.
        on_top: names or numbers of structures that cover others, the uppermost first.

    Raises:
        InputError: pydicom is missing, the file is damaged, `over` is None, a contour was drawn
            across the slices, none encloses a voxel, or structures overlap without an order.
    """
    dataset = read_dataset(path)
    with damaged_if_it_fails(path):
        found, renumbered = _numbered_from_one(path, _structures(dataset))
        frame_of_reference = _frame_of_reference(dataset)
    if over is None:
        raise InputError(
            f"'{path}' holds contours (RTSTRUCT), which have no voxels of their own",
            "Give it together with a volume, or with a segmentation that has voxels",
            code="no_grid",
        )
    chosen = {number: each for number, each in found.items() if wanted is None or number in wanted}
    tally = _Tally()
    planes = {number: _planes(path, each, over, tally) for number, each in sorted(chosen.items())}
    names = {number: each.name for number, each in found.items() if each.name}
    segments = [
        Segment(number, names.get(number, ""), partial(_parts, each, over.shape))
        for number, each in planes.items()
    ]
    array, overlaps = flattened(path, over.shape, segments, on_top)
    if any(each.contours for each in chosen.values()) and not array.any():
        raise InputError(
            f"the contours of '{path}' enclose no voxel of the image",
            "Give the contours that were drawn on this image",
            code="no_overlap",
        )
    return Labelmap(
        array,
        over,
        names,
        {number: each.colour for number, each in found.items() if each.colour is not None},
        remarks=(
            *renumbered,
            *_structure_remarks(path, chosen, array),
            *_plane_remarks(path, planes, tally),
            *overlaps,
        ),
        frame_of_reference=frame_of_reference,
    )


def _structures(dataset: Any) -> dict[int, _Structure]:
    """The regions of interest by their numbers."""
    found: dict[int, _Structure] = {}
    for item in dataset.get("StructureSetROISequence") or []:
        found[int(item.ROINumber)] = _Structure(" ".join(str(item.get("ROIName") or "").split()))
    for item in dataset.get("ROIContourSequence") or []:
        structure = found.setdefault(int(item.ReferencedROINumber), _Structure())
        colour = item.get("ROIDisplayColor")
        if colour is not None and len(colour) == 3:
            red, green, blue = (min(max(int(part), 0), 255) / 255 for part in colour)
            structure.colour = red, green, blue
        for contour in item.get("ContourSequence") or []:
            points = _points(contour)
            if not np.isfinite(points).all():
                raise ValueError(f"a point of ROI {item.ReferencedROINumber} is not finite")
            if str(contour.get("ContourGeometricType") or "") in _CLOSED and len(points) > 2:
                structure.contours.append(points)
            else:
                structure.others += 1
    return found


def _points(contour: Any) -> NDArray[np.float64]:
    """The points of a contour, shape (points, 3), parsed from the text of the field.

    pydicom would make an object of every number, which takes many times as long for a whole body.
    """
    element = contour.get_item("ContourData")
    value = None if element is None else element.value
    numbers = value.split(b"\\") if isinstance(value, bytes) and value.strip() else value or []
    return np.array([float(each) for each in numbers]).reshape(-1, 3)


def _numbered_from_one(
    path: Path, found: dict[int, _Structure]
) -> tuple[dict[int, _Structure], tuple[str, ...]]:
    """The structures with numbers that can be labels, and a remark if numbers were changed."""
    if min(found, default=1) >= 1 and max(found, default=1) <= _LARGEST:
        return found, ()
    numbered = dict(enumerate(found.values(), start=1))
    listed = ", ".join(f"{number} {each.name}".strip() for number, each in numbered.items())
    return numbered, (
        f"the structures of {path.name} have numbers that cannot be labels; they are counted from "
        f"1 in the order of the file: {listed}",
    )


def _frame_of_reference(dataset: Any) -> str:
    """The UID of the contours' frame of reference, "" if the file gives none."""
    for item in dataset.get("StructureSetROISequence") or []:
        if item.get("ReferencedFrameOfReferenceUID"):
            return str(item.ReferencedFrameOfReferenceUID)
    for item in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        if item.get("FrameOfReferenceUID"):
            return str(item.FrameOfReferenceUID)
    return str(dataset.get("FrameOfReferenceUID") or "")


def _planes(path: Path, structure: _Structure, over: Geometry, tally: _Tally) -> list[_Plane]:
    """The planes of a structure, at most one for each slice."""
    drawn: list[_Plane] = []
    to_voxels = np.linalg.inv(over.affine)
    for points in structure.contours:
        voxels = points @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        axis = _flat_axis(voxels)
        if axis is None:
            raise InputError(
                f"a contour of '{structure.name}' in '{path}' was drawn on a plane that is oblique "
                "to the slices of the image",
                "Give the image on whose slices the contours were drawn",
                code="oblique_contours",
            )
        place = float(voxels[:, axis].mean())
        plane = next(
            (
                each
                for each in reversed(drawn)
                if each.axis == axis and abs(each.place - place) < _ONE_PLANE
            ),
            None,
        )
        if plane is None:
            plane = _Plane(axis, place)
            drawn.append(plane)
        if any(np.array_equal(each, voxels) for each in plane.contours):
            # With the odd rule, a contour that is stored twice would become a hole.
            tally.repeated += 1
        else:
            plane.contours.append(voxels)
    nearest: dict[tuple[int, int], _Plane] = {}
    for plane in sorted(drawn, key=lambda each: each.beside):
        if not 0 <= plane.slice < over.size[plane.axis]:
            tally.outside += 1
        elif (plane.axis, plane.slice) in nearest:
            tally.crowded += 1
        else:
            nearest[plane.axis, plane.slice] = plane
            tally.farthest = max(tally.farthest, plane.beside * over.spacing[plane.axis])
    return list(nearest.values())


def _flat_axis(voxels: NDArray[np.float64]) -> int | None:
    """The axis to which a contour is perpendicular, k first; None if it is oblique."""
    spread = np.ptp(voxels, axis=0)
    return next((axis for axis in (2, 1, 0) if spread[axis] <= _FLAT), None)


def _parts(planes: Sequence[_Plane], shape: tuple[int, int, int]) -> Iterator[Part]:
    for plane in planes:
        # Columns and rows of the slice are along the other two axes, in the order i, j, k.
        columns, rows = (axis for axis in (0, 1, 2) if axis != plane.axis)
        polygons = [points[:, [columns, rows]] for points in plane.contours]
        corners = np.concatenate(polygons)
        size = np.array([shape[2 - columns], shape[2 - rows]])
        low = np.clip(np.floor(corners.min(axis=0)), 0, size - 1).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)) + 1, low + 1, size).astype(int)
        where: list[Any] = [0, 0, 0]
        where[2 - plane.axis] = plane.slice
        where[2 - columns] = slice(low[0], high[0])
        where[2 - rows] = slice(low[1], high[1])
        width, height = high - low
        inside = filled([polygon - low for polygon in polygons], int(height), int(width))
        yield Part(tuple(where), inside)


def _structure_remarks(
    path: Path, chosen: dict[int, _Structure], array: NDArray[Any]
) -> Iterator[str]:
    found = set(present_labels(array))
    shown = {number: each.name or str(number) for number, each in chosen.items()}
    others = sum(each.others for each in chosen.values())
    bare = [shown[number] for number, each in chosen.items() if not each.contours]
    thin = [
        shown[number] for number, each in chosen.items() if each.contours and number not in found
    ]
    if others:
        yield f"{others} contours of {path.name} are points or open lines, which enclose nothing"
    if bare:
        yield f"structures of {path.name} without a contour: {', '.join(bare)}"
    if thin:
        yield f"the contours of {', '.join(thin)} in {path.name} enclose no voxel of the image"


def _plane_remarks(path: Path, planes: dict[int, list[_Plane]], tally: _Tally) -> Iterator[str]:
    if tally.repeated:
        yield f"{tally.repeated} contours of {path.name} are stored twice and count once"
    if tally.outside:
        yield f"contours on {tally.outside} planes of {path.name} lie outside the image"
    if tally.crowded:
        yield (
            f"contours on {tally.crowded} planes of {path.name} lie between the slices of the "
            "image, where others are nearer to a slice: they are left out"
        )
    if any(each.beside > _BESIDE for drawn in planes.values() for each in drawn):
        yield (
            f"contours of {path.name} lie up to {tally.farthest:.2f} mm off the slices of the "
            "image: each counts for the nearest slice"
        )
