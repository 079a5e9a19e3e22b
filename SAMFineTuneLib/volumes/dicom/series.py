"""Reads volumes from DICOM images: from a series in a folder, or from one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.decoded_once import kept
from SAMFineTuneLib.volumes.dicom.folder import (
    NOT_IMAGES,
    Series,
    aside_remark,
    choose_series,
    find_series,
    find_series_below,
    matching,
)
from SAMFineTuneLib.volumes.dicom.gantry_tilt import straightened, tilt_degrees
from SAMFineTuneLib.volumes.dicom.header import (
    DamagedHeaderError,
    DicomFile,
    Plane,
    read_header,
    series_of,
)
from SAMFineTuneLib.volumes.dicom.pixels import voxels
from SAMFineTuneLib.volumes.dicom.stack import Stack, arrange
from SAMFineTuneLib.volumes.dicom.time_points import TimePoints, moved_between, time_points
from SAMFineTuneLib.volumes.frames import TimeAxis, require_frame


class DicomVolume(NamedTuple):
    """The volume of a series.

    Attributes:
        array: true values, shape (k, j, i), or red, green, blue, (k, j, i, 3), of colour images.
        geometry: where the voxels lie.
        modality: "CT", "MR", ...; None if it is not given.
        series: UID of the series, None if it has none.
        remarks: what the user should know of how it was read, one sentence each.
    """

    array: NDArray[Any]
    geometry: Geometry
    modality: str | None
    series: str | None
    remarks: tuple[str, ...]


def read_series(folder: Path, wanted: str | None = None, frame: int | None = None) -> DicomVolume:
    """The volume of an image series in a folder.

    Args:
        folder: the folder of the series, or one above it.
        wanted: which series: its number in the list that is shown if there are several, its UID or
            the end of the UID; None if there is only one.
        frame: which frame, where several slices lie at each place (`time_points`).

    Raises:
        InputError: there is no image series, there are several, or the series makes no volume; or
            it has several frames and none is chosen, or there is no such frame.
    """
    found, remarks = _found(folder, wanted)
    chosen = choose_series(folder, found, wanted)
    if wanted is None:
        remarks += aside_remark(folder, found, chosen)
    return _volume(folder, chosen, remarks, frame)


def read_dicom_file(path: Path, wanted: str | None = None, frame: int | None = None) -> DicomVolume:
    """The volume of one DICOM file: its frames, or its single slice.

    Args:
        path: the file.
        wanted: the series to which it must belong, as for `read_series`.
        frame: as for `read_series`.

    Raises:
        InputError: the file is damaged, holds no image, or makes no volume; or as `read_series`.
    """
    header = _image_header(path)
    series = Series(header.series, (header,), path.parent)
    if wanted is not None and not matching([series], wanted):
        raise InputError(
            f"'{path}' belongs to another DICOM series than {wanted}: {header.series}",
            "Name the folder of that series",
            code="no_such_series",
        )
    return _volume(path, series, _others_beside(header), frame)


def dicom_time_axis(path: Path, wanted: str | None = None) -> TimeAxis:
    """The axis of time of the volume of a file or of a series in a folder, from headers alone.

    Raises:
        InputError: as `read_series`, as far as headers show it.
    """
    if path.is_dir():
        planes = choose_series(path, _found(path, wanted)[0], wanted).planes
    else:
        planes = list(_image_header(path).planes)
    points = _time_points(path, planes)
    return TimeAxis(len(points.frames), points.step)


def _image_header(path: Path) -> DicomFile:
    """The header of a file that holds an image."""
    try:
        header = read_header(path)
    except DamagedHeaderError as error:
        raise InputError(
            f"the image '{path}' is damaged: its DICOM header cannot be read",
            "Copy, download or export it again",
            code="damaged_image",
        ) from error
    if header is None or not header.planes or header.modality in NOT_IMAGES:
        raise _no_image(path, header)
    return header


def series_uid(path: Path, wanted: str | None) -> str | None:
    """UID of the DICOM series that a path and a choice mean; None if the path is not DICOM.

    Raises:
        InputError: as `read_series`, without reading voxels.
    """
    if path.is_dir():
        return choose_series(path, _found(path, wanted)[0], wanted).uid or None
    return series_of(path) or None


def _found(folder: Path, wanted: str | None) -> tuple[list[Series], list[str]]:
    found, told = kept(folder, "DICOM series", lambda: find_series(folder))
    remarks = list(told)
    if wanted is not None and not matching(found, wanted):
        deeper, told = kept(folder, "DICOM series below", lambda: find_series_below(folder))
        if matching(deeper, wanted):
            found, remarks = deeper, list(told)
    if not found:
        raise InputError(
            f"'{folder}' holds no DICOM images",
            "Name an image file, or the folder of one DICOM series",
            code="not_an_image",
        )
    return found, remarks


def _volume(where: Path, series: Series, remarks: list[str], frame: int | None) -> DicomVolume:
    points = _time_points(where, series.planes)
    count = len(points.frames)
    number = require_frame(where, TimeAxis(count), frame)
    stack = _stack(where, points, number)
    array, geometry = voxels(where, stack.planes), stack.geometry
    told = [*remarks, *stack.remarks]
    if count > 1:
        told.append(f"the {count} frames of {where.name} are ordered by their {points.field}")
    if any(each.in_time for each in series.files):
        told.append(
            f"the frames of {where.name} follow each other in time; they are read as slices"
        )
    if stack.shear != (0.0, 0.0):
        angle = tilt_degrees(stack.shear, geometry.spacing[2])
        array, geometry = _straightened(array, geometry, stack.shear)
        told.append(
            f"the scanner was tilted by {angle:.1f} degrees in {where.name}: its slices were "
            "interpolated onto a straight grid, and results lie on that grid"
        )
    return DicomVolume(array, geometry, series.modality or None, series.uid or None, tuple(told))


def _time_points(where: Path, planes: Sequence[Plane]) -> TimePoints:
    """The frames of a series.

    Raises:
        InputError: time points differ in the places of their slices.
    """
    points = time_points(where, planes)
    moved = moved_between(planes) if len(points.frames) == 1 else ""
    if not moved:
        return points
    try:
        arrange(where, planes)
    except InputError as error:
        raise InputError(
            f"the frames of the DICOM series in '{where}' differ in their places: {moved}",
            "Export each time point as a series of its own",
            code="uneven_frames",
        ) from error
    return points


def _stack(where: Path, points: TimePoints, number: int) -> Stack:
    """The planes of a frame in their order, on the grid that all frames have.

    Raises:
        InputError: the planes make no volume, or the frames have different grids.
    """
    first = arrange(where, points.frames[0])
    if number == 0:
        return first
    stack = arrange(where, points.frames[number])
    if not stack.geometry.same_as(first.geometry):
        raise InputError(
            f"the frames of the DICOM series in '{where}' differ in their geometry: frame {number} "
            "has another size, spacing or orientation than frame 0",
            "Export each time point as a series of its own",
            code="uneven_frames",
        )
    return stack


def _straightened(
    array: NDArray[Any], geometry: Geometry, shear: tuple[float, float]
) -> tuple[NDArray[Any], Geometry]:
    if array.ndim == 3:
        return straightened(array, geometry, shear)
    colours = [straightened(array[..., number], geometry, shear) for number in range(3)]
    return np.stack([each for each, _ in colours], axis=-1), colours[0][1]


def _others_beside(header: DicomFile) -> list[str]:
    """A remark if a file is only a part of the series in its folder."""
    if not header.series or (len(header.planes) > 1 and not header.concatenation):
        return []
    for path in sorted(header.path.parent.iterdir()):
        if path == header.path or not path.is_file() or series_of(path) != header.series:
            continue
        part = "slice" if len(header.planes) == 1 else "part"
        return [
            f"only this one {part} of its DICOM series was read, {header.path.name}; name the "
            "folder to read the whole"
        ]
    return []


def _no_image(path: Path, header: DicomFile | None) -> InputError:
    modality = header.modality if header is not None else ""
    if modality == "SEG":
        return InputError(
            f"'{path}' is a DICOM segmentation object, which cannot be read",
            "Load it in 3D Slicer (QuantitativeReporting extension) and save it as .seg.nrrd",
            code="not_an_image",
        )
    kind = NOT_IMAGES.get(modality, "an object without an image")
    return InputError(
        f"'{path}' is DICOM, but {kind}{f' ({modality})' if modality else ''}",
        "Give the images that belong to it",
        code="not_an_image",
    )
