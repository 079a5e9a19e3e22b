"""Volumes and labelmaps from image files: NIfTI, NRRD, MetaImage, DICOM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.image_file import read_image
from SAMFineTuneLib.volumes.label_values import labels_of
from SAMFineTuneLib.volumes.labelmap import Labelmap
from SAMFineTuneLib.volumes.segment_header import segments
from SAMFineTuneLib.volumes.volume import Volume


def read_volume(path: str | os.PathLike[str], series: str | None = None) -> Volume:
    """Read a 3-D scalar image from a file or from a folder with DICOM series.

    An image of one slice is a volume with k = 1.

    Args:
        path: the file or folder.
        series: which DICOM series of the folder: its number in the list that is shown where there
            are several, its UID or the end of that; None where the only one is meant.

    Raises:
        InputError: the file is missing, damaged, no image, or not a 3-D scalar one.
    """
    path = Path(path)
    read = read_image(path, series)
    array, non_finite = _finite(path, read.array)
    remarks = (*read.remarks, *_non_finite_remark(path, non_finite))
    return Volume(array, read.geometry, read.modality, non_finite, remarks, read.series)


def read_labelmap(path: str | os.PathLike[str], *, empty_ok: bool = False) -> Labelmap:
    """Read a segmentation, with names, colours and terms where 3D Slicer wrote them into an NRRD.

    Whole numbers that are stored as floating point are accepted; NaN and infinite voxels count as
    background.

    Args:
        path: the file.
        empty_ok: accept a segmentation without a single labelled voxel, as a prediction may be.

    Raises:
        InputError: as `read_volume`, and where the values cannot be labels or are all background.
    """
    path = Path(path)
    read = read_image(path)
    array, non_finite = labels_of(path, read.array)
    if not (empty_ok or array.any()):
        raise InputError(
            f"the segmentation '{path}' is empty: all its voxels are 0",
            "Label the structure on some slices first, or name the right file",
            code="empty_segmentation",
        )
    told = segments(read.header)
    return Labelmap(
        array,
        read.geometry,
        told.names,
        told.colours,
        non_finite,
        told.terminologies,
        (*read.remarks, *_non_finite_remark(path, non_finite)),
    )


def _finite(path: Path, array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The array with its lowest finite value wherever it was NaN or infinite, and how many."""
    if array.dtype.kind != "f":
        return array, 0
    good = np.isfinite(array)
    count = int(array.size - np.count_nonzero(good))
    if count == array.size:
        raise InputError(
            f"'{path}' holds no finite number", "Give another image", code="not_an_image"
        )
    if count:
        array[~good] = array[good].min()
    return array, count


def _non_finite_remark(path: Path, count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (
        f"{path.name} has {count} voxels that are no numbers (NaN or infinite); "
        "they are treated as background",
    )
