"""Reads TIFF files of several pages, which are the slices of a volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.pictures.decoding import (
    header,
    is_for_pillow,
    is_tiff,
    opened,
    pixels_of_page,
)


def read_pages(path: Path) -> sitk.Image | None:
    """The pages of a TIFF file as the slices of an image, in grey or in colour.

    ITK reads most kinds of pages itself, but it takes the size and the kind of the first page for
    those of all.

    Args:
        path: any file.

    Returns:
        The image; None if the file is no TIFF file of several pages, or ITK reads it.

    Raises:
        InputError: the pages differ in size or kind, or one is damaged.
    """
    if not is_tiff(path):
        return None
    with opened(path) as picture:
        count = int(getattr(picture, "n_frames", 1))
        if count < 2:
            return None
        kinds = []
        for number in range(count):
            picture.seek(number)
            kinds.append((picture.size, picture.mode))
        _require_alike(path, kinds)
        if not is_for_pillow(picture):
            return None
        pages = []
        for number in range(count):
            picture.seek(number)
            pages.append(pixels_of_page(path, picture))
    array = np.stack(pages)
    image = sitk.GetImageFromArray(array, isVector=array.ndim > 3)
    image.SetSpacing((*header(path)[1], 1.0))
    return image


def _require_alike(path: Path, kinds: list[tuple[tuple[int, int], str]]) -> None:
    first = kinds[0]
    for number, (size, mode) in enumerate(kinds):
        if size != first[0]:
            raise InputError(
                f"the pages of '{path}' differ in size: page {number + 1} has "
                f"{size[0]} x {size[1]} pixels, and the first one {first[0][0]} x {first[0][1]}",
                "Save the pages of one size in a file of their own",
                code="other_size",
            )
        if mode != first[1]:
            raise InputError(
                f"the pages of '{path}' differ in kind: page {number + 1} is {_kind(mode)}, and "
                f"the first one {_kind(first[1])}",
                "Save all pages in grey, or all in colour",
                code="not_scalar",
            )


def _kind(mode: str) -> str:
    """What Pillow's mode of a picture means."""
    if mode in ("1", "L", "LA", "La"):
        return "in grey"
    if mode.startswith(("I", "F")):
        return "in grey of more than 8 bits"
    return "with a palette" if mode in ("P", "PA") else "in colour"
