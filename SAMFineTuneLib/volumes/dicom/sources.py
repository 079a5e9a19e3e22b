"""Finds the DICOM files that a volume was read from, and reads their headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.dicom.dataset import (
    damaged_if_it_fails,
    files_below,
    is_dicom,
    read_dataset,
)

# How far an image may lie from the slice that was read from it, in voxels.
_BESIDE = 0.1


def names_dicom(path: Path) -> bool:
    """Whether a path is a DICOM file, or a folder that holds one."""
    if path.is_dir():
        return any(is_dicom(each) for each in files_below(path))
    return is_dicom(path)


def source_headers(path: Path, geometry: Geometry, chosen: str | None = None) -> list[Any]:
    """The headers of the images of a volume, in the order of its slices; see `pydicom.Dataset`.

    They are found by their places: for each slice of the volume, the image at the same place.

    Args:
        path: the volume's file or folder.
        geometry: geometry of the volume as it was read.
        chosen: UID of the series, if it is known; None takes the one that fits.

    Raises:
        InputError: pydicom is not installed, or no series or several have the volume's slices.
    """
    files = [path] if not path.is_dir() else files_below(path)
    series: dict[str, list[tuple[NDArray[np.float64], Any]]] = {}
    for file in files:
        if not is_dicom(file):
            continue
        header = read_dataset(file, pixels=False)
        with damaged_if_it_fails(file):
            places = _positions(header)
            identifier = str(header.get("SeriesInstanceUID") or "")
        if len(places) and chosen in (None, identifier):
            series.setdefault(identifier, []).append((places, header))
    fitting = [
        ordered
        for images in series.values()
        if (ordered := _in_order(images, geometry)) is not None
    ]
    if len(fitting) != 1:
        found = "several" if fitting else "none"
        raise InputError(
            f"of the DICOM series in '{path}', {found} have images where the volume has its "
            "slices, so it is not known to which one a DICOM segmentation would belong",
            "Put the files of one series into a folder of their own, or name an output in "
            ".seg.nrrd",
            code="no_source_series",
        )
    return fitting[0]


def _positions(header: Any) -> NDArray[np.float64]:
    """The places of an image's frames, shape (frames, 3), LPS, mm; empty if it has no voxels."""
    if "Rows" not in header or "SegmentSequence" in header:
        return np.zeros((0, 3))
    frames: Sequence[Any] = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    places = [
        (frame.get("PlanePositionSequence") or shared[0].get("PlanePositionSequence") or [{}])[
            0
        ].get("ImagePositionPatient")
        for frame in frames
    ] or [header.get("ImagePositionPatient")]
    return np.array([[float(part) for part in place] for place in places if place]).reshape(-1, 3)


def _in_order(
    images: list[tuple[NDArray[np.float64], Any]], geometry: Geometry
) -> list[Any] | None:
    """The headers by rising slice; None if a slice of the volume has no image."""
    to_voxels = np.linalg.inv(geometry.affine)
    taken: dict[int, Any] = {}
    for places, header in images:
        for voxel in places @ to_voxels[:3, :3].T + to_voxels[:3, 3]:
            number = round(float(voxel[2]))
            if np.abs(voxel - [0, 0, number]).max() <= _BESIDE:
                taken[number] = header
    if not set(range(geometry.size[2])) <= set(taken):
        return None
    headers = [taken[number] for number in range(geometry.size[2])]
    # A file of several frames is listed once.
    return list({id(header): header for header in headers}.values())
