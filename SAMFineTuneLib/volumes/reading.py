"""Volumes and labelmaps from image files: NIfTI, NRRD, MetaImage, DICOM."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.dicom_labels import dicom_labels, dicom_words, read_dicom_labels
from SAMFineTuneLib.volumes.geometry import Geometry
from SAMFineTuneLib.volumes.image_file import read_image
from SAMFineTuneLib.volumes.label_values import labels_of
from SAMFineTuneLib.volumes.labelmap import Labelmap
from SAMFineTuneLib.volumes.segment_header import segments
from SAMFineTuneLib.volumes.volume import Volume


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a 3-D scalar image from a file or from a folder with one DICOM series.

    An image of one slice is a volume with k = 1.

    Raises:
        InputError: the file is missing, damaged, no image, or not a 3-D scalar one.
    """
    path = Path(path)
    words = dicom_words(path)
    if words is not None:
        raise InputError(
            f"'{path}' holds {words}, not an image",
            "Name the image, such as the folder of its DICOM series; this file can be given as its "
            "segmentation",
            code="not_an_image",
        )
    read = read_image(path)
    array, non_finite = _finite(path, read.array)
    remarks = (*read.remarks, *_non_finite_remark(path, non_finite))
    return Volume(array, read.geometry, read.modality, non_finite, remarks)


def read_labelmap(
    path: str | os.PathLike[str],
    *,
    empty_ok: bool = False,
    over: Geometry | None = None,
    wanted: Collection[int] | None = None,
    on_top: Sequence[str] = (),
) -> Labelmap:
    """Read a segmentation, with names, colours and terms where 3D Slicer wrote them into an NRRD.

    A DICOM segmentation object (SEG) or set of contours (RTSTRUCT) is read, too; it may be named by
    a folder that holds no other.

    Whole numbers that are stored as floating point are accepted; NaN and infinite voxels count as
    background.

    Args:
        path: the file.
        empty_ok: accept a segmentation without a single labelled voxel, as a prediction may be.
        over: the grid of the image that it is of, where that is known; contours need it.
        wanted: of DICOM objects, whose segments may overlap, the labels to read; None reads all.
        on_top: names or labels of segments that cover others where they overlap, the highest first.

    Raises:
        InputError: as `read_volume`, and where the values cannot be labels or are all background.
    """
    path = Path(path)
    dicom = dicom_labels(path)
    if dicom is not None:
        labelmap = read_dicom_labels(dicom, over, wanted, on_top)
        if wanted is not None and not (empty_ok or labelmap.labels):
            raise _absent(dicom, labelmap, wanted)
        _refuse_empty(dicom, labelmap.array, empty_ok)
        return labelmap
    read = read_image(path)
    array, non_finite = labels_of(path, read.array)
    _refuse_empty(path, array, empty_ok)
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


def _refuse_empty(path: Path, array: NDArray[Any], empty_ok: bool) -> None:
    if not (empty_ok or array.any()):
        raise InputError(
            f"the segmentation '{path}' is empty: all its voxels are 0",
            "Label the structure on some slices first, or name the right file",
            code="empty_segmentation",
        )


def _absent(path: Path, labelmap: Labelmap, wanted: Collection[int]) -> InputError:
    asked = ", ".join(map(str, sorted(wanted)))
    named = ", ".join(f"{label} {name}" for label, name in sorted(labelmap.names.items()))
    return InputError(
        f"label {asked} does not occur in '{path}'" + (f", which names {named}" if named else ""),
        "Choose among those with --labels",
        code="label_absent",
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
