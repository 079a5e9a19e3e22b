"""Reads volumes and labelmaps from image files: NIfTI, NRRD, MetaImage, DICOM, pictures."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.colour import colours_or_grey
from SAMFineTuneLib.volumes.dicom.labels import (
    dicom_labels,
    dicom_labels_text,
    read_dicom_labels,
)
from SAMFineTuneLib.volumes.frames import ONE_FRAME, TimeAxis, require_frame
from SAMFineTuneLib.volumes.image_as_labels import require_structures
from SAMFineTuneLib.volumes.image_file import read_geometry, read_image, read_time_axis
from SAMFineTuneLib.volumes.label_values import labels_of, stored_step
from SAMFineTuneLib.volumes.labelmap import Labelmap
from SAMFineTuneLib.volumes.merged_labels import Merges, labels_to_read, merged
from SAMFineTuneLib.volumes.number_range import computable
from SAMFineTuneLib.volumes.pictures.decoding import is_picture
from SAMFineTuneLib.volumes.pictures.mask import read_mask
from SAMFineTuneLib.volumes.segment_header import moved_by_old_extent, segments
from SAMFineTuneLib.volumes.segment_layers import Flattened, flatten, needs_flattening
from SAMFineTuneLib.volumes.volume import Volume


def read_volume(
    path: str | os.PathLike[str], series: str | None = None, frame: int | None = None
) -> Volume:
    """Read a 3-D image, grey or in colour, from a file or from a folder with DICOM series.

    An image of one slice is a volume with k = 1. Three values a voxel are red, green and blue, four
    these and an opacity; an image without a coloured voxel is grey. Of an image with an axis of
    time one frame is read; see `frames`.

    Args:
        path: the file or folder.
        series: which DICOM series of the folder: its number in the list that is shown if there are
            several, its UID or the end of the UID; None if there is only one.
        frame: the number of the frame, counted from 0; None if there is only one.

    Raises:
        InputError: the file is missing, damaged, no image, or not a 3-D one; or it has several
            frames and none is chosen, or there is no such frame.
    """
    path = Path(path)
    kind = dicom_labels_text(path)
    if kind is not None:
        raise InputError(
            f"'{path}' holds {kind}, not an image",
            "Name the image, such as the folder of its DICOM series; this file can be given as its "
            "segmentation",
            code="not_an_image",
        )
    read = read_image(path, series, frame=frame, colours_ok=True)
    array, non_finite = _finite(path, read.array)
    remarks = (*read.remarks, *_non_finite_remark(path, non_finite))
    if array.ndim > 3:
        array, told = colours_or_grey(array, path.name)
        remarks = (*remarks, *told)
    return Volume(
        computable(array),
        read.geometry,
        read.modality,
        non_finite,
        remarks,
        read.series,
        is_colour=array.ndim > 3,
    )


def read_grid(path: str | os.PathLike[str], series: str | None = None) -> Geometry:
    """The geometry of a volume, or of each frame; for most files only the header is read.

    Raises:
        InputError: as `read_volume`, as far as the header shows it.
    """
    return read_geometry(Path(path), series)


def read_time(path: str | os.PathLike[str], series: str | None = None) -> TimeAxis:
    """The axis of time of an image, from its header; it has one frame for a 3-D image.

    Raises:
        InputError: as `read_volume`, as far as the header shows it.
    """
    return read_time_axis(Path(path), series)


def read_time_of_labels(path: str | os.PathLike[str]) -> TimeAxis:
    """The same for a segmentation.

    Raises:
        InputError: as `read_labelmap`, as far as the header shows it.
    """
    path = Path(path)
    return ONE_FRAME if dicom_labels(path) is not None else read_time_axis(path)


def read_labelmap(
    path: str | os.PathLike[str],
    *,
    frame: int | None = None,
    empty_ok: bool = False,
    over: Geometry | None = None,
    wanted: Collection[int] | None = None,
    on_top: Sequence[str] = (),
    merge: Merges | None = None,
) -> Labelmap:
    """Read a segmentation; from an NRRD file of 3D Slicer with names, colours and terms.

    A DICOM segmentation object (SEG) or set of contours (RTSTRUCT) is read too; instead of its file
    a folder may be named that holds no other.

    The values of a picture (PNG, TIFF, BMP), the indices of its palette or its colours are labels;
    see `pictures.mask.read_mask`.

    Whole numbers that are stored as floating point are accepted; NaN and infinite voxels count as
    background. Segments in several layers become one labelmap; see `segment_layers` for their
    labels. A voxel belongs to a fractional segment that fills more than half of it.

    Args:
        path: the file.
        frame: the number of the frame, counted from 0; None if there is only one.
        empty_ok: accept a segmentation without a single labelled voxel, as a prediction may be.
        over: the grid of the image that was segmented, if it is known; contours need it.
        wanted: the labels that the user has named, None for all. Overlaps of other labels are
            ignored. If labels are named, the check that refuses an image given as a segmentation is
            left out.
        on_top: names or labels of segments that cover others where they overlap, the highest first.
        merge: labels that count as one: new label -> its parts. `wanted` counts after merging.

    Raises:
        InputError: as `read_volume`, or the values cannot be labels, are all background, or are
            those of an image; or segments overlap and neither is to be on top; or a merged label
            is taken.
    """
    path, merges = Path(path), merge or {}
    labelmap = _read_labelmap(path, frame, empty_ok, over, labels_to_read(wanted, merges), on_top)
    return merged(labelmap, merges, path.name)


def _read_labelmap(
    path: Path,
    frame: int | None,
    empty_ok: bool,
    over: Geometry | None,
    wanted: Collection[int] | None,
    on_top: Sequence[str],
) -> Labelmap:
    """The segmentation as it is in the file."""
    dicom = dicom_labels(path)
    if dicom is not None:
        require_frame(dicom, ONE_FRAME, frame)
        labelmap = read_dicom_labels(dicom, over, wanted, on_top)
        if wanted is not None and not (empty_ok or labelmap.labels):
            raise _absent(dicom, labelmap, wanted)
        _refuse_empty(dicom, labelmap.array, empty_ok)
        return labelmap
    if is_picture(path):
        require_frame(path, ONE_FRAME, frame)
        return _mask(path, empty_ok, wanted)
    read = read_image(path, frame=frame, layers_ok=True)
    if needs_flattening(read.array, read.header):
        flat = flatten(path, read.array, read.header, wanted, on_top)
    else:
        array, bad = labels_of(path, read.array, stored_step(read.header))
        flat = Flattened(array, segments(read.header), bad, ())
    if wanted is None:
        require_structures(path, flat.array)
    _refuse_empty(path, flat.array, empty_ok)
    return Labelmap(
        flat.array,
        moved_by_old_extent(read.geometry, read.header),
        flat.told.names,
        flat.told.colours,
        flat.non_finite,
        flat.told.terminologies,
        (*read.remarks, *flat.remarks, *_non_finite_remark(path, flat.non_finite)),
    )


def _mask(path: Path, empty_ok: bool, wanted: Collection[int] | None) -> Labelmap:
    """The labels of a picture: its values, indices of its palette, or its colours."""
    mask = read_mask(path, any_number=wanted is not None)
    array, bad = labels_of(path, mask.array)
    _refuse_empty(path, array, empty_ok)
    remarks = (*mask.remarks, *_non_finite_remark(path, bad))
    return Labelmap(
        array, mask.geometry, mask.names, mask.colours, bad, mask.terminologies, remarks
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
        "Choose labels that occur in it",
        code="label_absent",
        absent=asked,
    )


def _finite(path: Path, array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The array with NaN and infinity replaced by its lowest finite value, and their number."""
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
        f"{path.name} has {count} voxels that are not finite (NaN or infinite); "
        "they are treated as background",
    )
