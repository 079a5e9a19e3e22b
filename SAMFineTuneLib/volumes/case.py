"""Several images of one case, such as T1 and FLAIR of one head, as the channels of one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import ON_GRID, Geometry
from SAMFineTuneLib.volumes.image_grid import resampled
from SAMFineTuneLib.volumes.reading import read_time, read_volume
from SAMFineTuneLib.volumes.volume import Volume

# The networks have three input channels.
MOST_IMAGES = 3
# A further image that covers less of the first one than this is of something else.
_LEAST_COVERED = 0.05
# An image that covers nearly all of the first one is not worth a remark.
_COVERED = 0.99


def read_case(
    path: Path,
    channels: Sequence[Path] = (),
    series: str | None = None,
    frame: int | None = None,
) -> Volume:
    """Reads a volume; with further images of the same case, all of them as one.

    The further images are resampled onto the grid of the first one, linearly. Where one of them
    does not reach, it has its lowest value. Pictures are laid upon each other pixel by pixel. Of
    images with an axis of time the same frame is read; one without serves every frame of the
    others.

    Args:
        path: the first image, as for `read_volume`.
        channels: the further images, at most two.
        series: which DICOM series of the first image.
        frame: which frame, for an image with an axis of time.

    Raises:
        InputError: as `read_volume`; too many images, or one that is named twice; a colour image
            among several; a further image that does not lie over the first one, is a picture of
            another size, or has another number of frames.
    """
    if len(channels) >= MOST_IMAGES:
        raise InputError(
            f"the case of '{path}' has {len(channels) + 1} images",
            f"Name {MOST_IMAGES} at most",
            code="too_many_images",
        )
    if len({each.absolute() for each in (path, *channels)}) <= len(channels):
        raise InputError(
            f"an image is named twice for the case of '{path}'",
            "Name different images of the case",
            code="same_image",
        )
    first = read_volume(path, series, frame)
    if not channels:
        return first
    others = [
        read_volume(each, frame=_frame_of_channel(each, path, series, frame)) for each in channels
    ]
    for own, image in zip((path, *channels), (first, *others), strict=True):
        if image.is_colour:
            raise InputError(
                f"'{own}' is a colour image, which cannot be one of several images of a case",
                "Give the colour image alone, or grey images",
                code="not_scalar",
            )
    arrays, remarks = [first.array], list(first.remarks)
    for own, image in zip(channels, others, strict=True):
        array, told = _onto(image, first.geometry, own, path)
        arrays.append(array)
        remarks += [*image.remarks, *told]
    return replace(
        first,
        array=np.stack(arrays, axis=-1),
        non_finite=first.non_finite + sum(each.non_finite for each in others),
        remarks=tuple(dict.fromkeys(remarks)),
        further_modalities=tuple(each.modality for each in others),
    )


def _frame_of_channel(
    channel: Path, first: Path, series: str | None, frame: int | None
) -> int | None:
    """The frame to read of a further image; None for one without an axis of time."""
    own, expected = read_time(channel).frames, read_time(first, series).frames
    if own == 1:
        return None
    if own != expected:
        raise InputError(
            f"'{channel}' has {own} frames, and the first image of its case, '{first}', has "
            f"{'one' if expected == 1 else expected}",
            "Give images of one case with equally many frames, or of one frame that holds for all",
            code="other_frames",
        )
    return frame


def _require_size(own_grid: Geometry, grid: Geometry, own: Path, first: Path) -> None:
    """Refuses a picture that does not lie over the other image pixel by pixel.

    A picture does not say where it lies, and the resolution that it may tell is one of printing.
    """
    if tuple(own_grid.size) == tuple(grid.size):
        return
    sizes = [" x ".join(map(str, each.size[: 2 + (each.size[2] > 1)])) for each in (own_grid, grid)]
    raise InputError(
        f"'{own}' has {sizes[0]} pixels and '{first}' has {sizes[1]}, and a picture does not say "
        "where it lies",
        "Give pictures of one size, in which each pixel shows the same place in all of them",
        code="other_size",
    )


def _onto(
    image: Volume, grid: Geometry, own: Path, first: Path
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """An image (k, j, i) on another grid, and remarks of what it does not cover."""
    if image.geometry.same_as(grid, ON_GRID):
        return image.array, ()
    if image.geometry.is_picture or grid.is_picture:
        _require_size(image.geometry, grid, own, first)
        return image.array, ()
    everywhere = np.ones(image.array.shape, np.uint8)
    covered = float(resampled(everywhere, image.geometry, grid).mean())
    if covered < _LEAST_COVERED:
        raise InputError(
            f"'{own}' covers {covered:.0%} of '{first}', so the two are not images of one case in "
            "one place",
            "Name images of the same examination, or register them in 3D Slicer first",
            code="no_overlap",
        )
    values = image.array.astype(np.float32)
    lowest = float(values.min())
    array = resampled(values, image.geometry, grid, sitk.sitkLinear, lowest)
    if covered >= _COVERED:
        return array, ()
    remark = f"{own.name} covers {covered:.0%} of {first.name}; beyond, its lowest value is taken"
    return array, (remark,)
