"""Reads volumes from DICOM images: from a series in a folder, or from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
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
    read_header,
    series_of,
)
from SAMFineTuneLib.volumes.dicom.pixels import voxels
from SAMFineTuneLib.volumes.dicom.stack import arrange


class DicomVolume(NamedTuple):
    """The volume of a series.

    Attributes:
        array: true values, shape (k, j, i), or red, green, blue, (1, j, i, 3), of one colour image.
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


def read_series(folder: Path, wanted: str | None = None) -> DicomVolume:
    """The volume of an image series in a folder.

    Args:
        folder: the folder of the series, or one above it.
        wanted: which series: its number in the list that is shown if there are several, its UID or
            the end of the UID; None if there is only one.

    Raises:
        InputError: there is no image series, there are several, or the series makes no volume.
    """
    found, remarks = _found(folder, wanted)
    chosen = choose_series(folder, found, wanted)
    if wanted is None:
        remarks += aside_remark(folder, found, chosen)
    return _volume(folder, chosen, remarks)


def read_dicom_file(path: Path, wanted: str | None = None) -> DicomVolume:
    """The volume of one DICOM file: its frames, or its single slice.

    Args:
        path: the file.
        wanted: the series to which it must belong, as for `read_series`.

    Raises:
        InputError: the file is damaged, holds no image or several in colour, or makes no volume.
    """
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
    series = Series(header.series, (header,), path.parent)
    if wanted is not None and not matching([series], wanted):
        raise InputError(
            f"'{path}' belongs to another DICOM series than {wanted}: {header.series}",
            "Name the folder of that series",
            code="no_such_series",
        )
    return _volume(path, series, _others_beside(header))


def series_uid(path: Path, wanted: str | None) -> str | None:
    """UID of the DICOM series that a path and a choice mean; None if the path is not DICOM.

    Raises:
        InputError: as `read_series`, without reading voxels.
    """
    if path.is_dir():
        return choose_series(path, _found(path, wanted)[0], wanted).uid or None
    return series_of(path) or None


def _found(folder: Path, wanted: str | None) -> tuple[list[Series], list[str]]:
    found, remarks = find_series(folder)
    if wanted is not None and not matching(found, wanted):
        deeper, told = find_series_below(folder)
        if matching(deeper, wanted):
            found, remarks = deeper, told
    if not found:
        raise InputError(
            f"'{folder}' holds no DICOM images",
            "Name an image file, or the folder of one DICOM series",
            code="not_an_image",
        )
    return found, remarks


def _volume(where: Path, series: Series, remarks: list[str]) -> DicomVolume:
    colours = [each for each in series.files if each.samples > 1]
    if colours and len(series.planes) > 1:
        raise _several_in_colour(where, len(series.planes), colours[0])
    stack = arrange(where, series.planes)
    array, geometry = voxels(where, stack.planes), stack.geometry
    # Palettes are seen only here.
    if array.ndim > 3 and len(array) > 1:
        raise _several_in_colour(where, len(array), series.files[0])
    told = [*remarks, *stack.remarks]
    if any(each.in_time for each in series.files):
        told.append(
            f"the frames of {where.name} follow each other in time; they are read as slices"
        )
    if stack.shear != (0.0, 0.0):
        angle = tilt_degrees(stack.shear, geometry.spacing[2])
        array, geometry = straightened(array, geometry, stack.shear)
        told.append(
            f"the scanner was tilted by {angle:.1f} degrees in {where.name}: its slices were "
            "interpolated onto a straight grid, and results lie on that grid"
        )
    return DicomVolume(array, geometry, series.modality or None, series.uid or None, tuple(told))


def _several_in_colour(where: Path, count: int, first: DicomFile) -> InputError:
    return InputError(
        f"'{where}' holds {count} images in colour, of which only single ones can be read: "
        f"{first.path.name}",
        "Give a single image of it",
        code="not_scalar",
    )


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
