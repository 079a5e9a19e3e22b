"""The slices of unlabelled images, prepared in files once and read when they are needed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.image_list import evenly_spread
from SAMFineTuneLib.examples.prepared_slices import (
    PreparedCase,
    PreparedSlice,
    PreparedSlices,
    PreparedWriter,
    about_prepared,
)
from SAMFineTuneLib.examples.read_ahead import read_ahead
from SAMFineTuneLib.geometry.cut_axis import cut_axis
from SAMFineTuneLib.pretraining.masked.image_files import FoundImages, ImageFile
from SAMFineTuneLib.slices.intensity import find_normalisation, sample_voxels
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Volume, read_volume
from SAMFineTuneLib.volumes.image_as_labels import require_structures
from SAMFineTuneLib.volumes.reading import read_time

# Raised where slices are prepared otherwise, so that older ones are made again.
_VERSION = 1
# A slice is blank where its grey levels, of 0 to 1 in the volume's window, deviate less than this.
# Of 1571 slices of CT and MR five are empty, with a deviation of 0; no other has less than 0.088.
_LEAST_DEVIATION = 0.03
# Frames of an image with an axis of time that are learnt from; neighbours in time look alike.
_MOST_FRAMES = 8
# An image with so few values, all of them whole numbers, is taken for a segmentation; a volume with
# more of them is one where touching voxels mostly have the same value.
_FEW_VALUES, _MORE_VALUES = 32, 128
_MOST_TOLD = 10
_WAIT_S = 0.5

Report = Callable[[int, int], None]


class _LeftOut(Exception):
    """An image that is none to learn from, and why."""


def prepared_slices(
    found: FoundImages,
    folder: Path,
    skip_unreadable: bool,
    check: Callable[[], None],
    report: Report,
) -> tuple[PreparedSlices, list[str]]:
    """Reads all images, unless this was done before, and opens their slices.

    Every image is cut along the axis that the program would cut it along, and gets an intensity
    window of its own. Blank slices are dropped.

    Args:
        found: the images.
        folder: for the prepared slices.
        skip_unreadable: whether to go on without files that cannot be read.
        check: called between images; may raise to stop.
        report: called with the number of images that are read and of all.

    Returns:
        The slices, and what the user should know, one sentence each.

    Raises:
        InputError: a file cannot be used, or no slice is left.
    """
    fingerprint = fingerprint_of(found, skip_unreadable)
    if (about_prepared(folder) or {}).get("fingerprint") != fingerprint:
        _prepare(found, folder, fingerprint, skip_unreadable, check, report)
    about = about_prepared(folder) or {}
    return PreparedSlices(folder), [*found.remarks, *about["remarks"]]


def wait_for_slices(
    found: FoundImages, folder: Path, skip_unreadable: bool, check: Callable[[], None]
) -> PreparedSlices:
    """The slices that another process of the same training prepares."""
    fingerprint = fingerprint_of(found, skip_unreadable)
    while (about_prepared(folder) or {}).get("fingerprint") != fingerprint:
        check()
        time.sleep(_WAIT_S)
    return PreparedSlices(folder)


def fingerprint_of(found: FoundImages, skip_unreadable: bool) -> str:
    """Text that differs where other or changed files were read."""
    content = hashlib.sha256(repr((_VERSION, skip_unreadable)).encode())
    for each in found.files:
        text = json.dumps([str(each.path), each.series, each.size, each.changed])
        content.update(text.encode())
    return content.hexdigest()


def _prepare(
    found: FoundImages,
    folder: Path,
    fingerprint: str,
    skip_unreadable: bool,
    check: Callable[[], None],
    report: Report,
) -> None:
    remarks: list[str] = []
    blank = kept = 0
    with PreparedWriter(folder) as writer:
        report(0, len(found.files))
        for done, (file, read) in enumerate(read_ahead(found.files, _read), start=1):
            check()
            report(done, len(found.files))
            if isinstance(read, InputError):
                if not skip_unreadable:
                    raise _unreadable(file, read) from read
                remarks.append(f"skipped: {file.name}: {read.message}")
            elif isinstance(read, str):
                remarks.append(f"left out: {file.name} {read}")
            else:
                for case, dropped in read:
                    blank += dropped
                    kept += len(case.slices)
                    if case.slices:
                        writer.add(case)
        if not kept:
            first = f": {remarks[0]}" if remarks else ", as all of them are blank"
            raise InputError(
                f"no slice of the images is left to learn from{first}",
                "Name other images",
                code="no_images",
            )
        told = remarks[:_MOST_TOLD]
        if len(remarks) > _MOST_TOLD:
            told.append(f"and {counted(len(remarks) - _MOST_TOLD, 'further file')}")
        if blank:
            told.append(f"{counted(blank, 'blank slice')} dropped, {kept} left")
        writer.finish({"fingerprint": fingerprint, "remarks": told})


def _unreadable(file: ImageFile, error: InputError) -> InputError:
    return InputError(
        f"{file.name}: {error.message}",
        "Take the file away, or go on without files that cannot be read",
        code="unreadable_image",
    )


def _read(file: ImageFile) -> list[tuple[PreparedCase, int]] | str:
    """The slices of an image, and how many are blank, for each frame; or why it is left out."""
    try:
        frames = read_time(file.path, file.series).frames
        if frames == 1:
            return [_cut(read_volume(file.path, file.series))]
        chosen = evenly_spread(frames, _MOST_FRAMES)
        return [_cut(read_volume(file.path, file.series, each)) for each in chosen]
    except _LeftOut as reason:
        return str(reason)


def _cut(volume: Volume) -> tuple[PreparedCase, int]:
    try:
        sample = sample_voxels(volume)
    except InputError as error:
        if error.code != "constant_image":
            raise
        raise _LeftOut("has the same value everywhere") from error
    if not volume.is_colour and _looks_like_labels(volume, sample.values):
        raise _LeftOut("looks like a segmentation")
    window = find_normalisation([sample]).window_for(sample)
    stack = SliceStack.of(volume, cut_axis(volume.geometry, None))
    slices = []
    for number in range(len(stack)):
        pixels = stack[number]
        levels = window.apply(pixels)
        if levels.std() >= _LEAST_DEVIATION:
            # Pictures of 8 bits are kept as they are, which loses nothing.
            image = pixels if pixels.dtype == np.uint8 else levels.astype(np.float16)
            slices.append(_without_mask(number, image))
    return PreparedCase(slices, window, stack.pixel_spacing), len(stack) - len(slices)


def _without_mask(number: int, image: NDArray[Any]) -> PreparedSlice:
    nothing = np.zeros((0, 0), dtype=np.uint8)
    return PreparedSlice(number, np.ascontiguousarray(image), nothing, [])


def _looks_like_labels(volume: Volume, sampled: NDArray[np.float64]) -> bool:
    """Whether there are few values, and these are whole numbers with background."""
    found = np.unique(sampled)
    whole = found[0] == 0 and np.all(found == np.rint(found))
    if not whole or len(found) > _MORE_VALUES:
        return False
    if len(found) <= _FEW_VALUES:
        return True
    try:
        require_structures(Path(), np.rint(volume.array).astype(np.int64))
    except InputError:
        return False
    return min(volume.geometry.shape) > 1
