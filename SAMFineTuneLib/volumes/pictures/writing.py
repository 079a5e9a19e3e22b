"""Writes pictures: masks as PNG, TIFF or BMP with the colours of their labels, maps as TIFF."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.labelmap import Colour
from SAMFineTuneLib.volumes.pictures.decoding import decode
from SAMFineTuneLib.volumes.pictures.segment_text import KEYWORD

_TIFF = (".tif", ".tiff")
_MM_PER_INCH = 25.4
_COMPRESSION = 6
# Bytes of a PNG file before its second chunk: its signature of 8, and the first chunk, IHDR.
_PNG_HEADER = 33
_METRES = b"\1"
_PALETTE_LENGTH = 256
_LARGEST = {".bmp": np.iinfo(np.uint8).max}
_LARGEST_ELSEWHERE = np.iinfo(np.uint16).max


def require_labels_holdable(path: Path, largest: int) -> None:
    """Checks that a picture file can hold labels up to a number.

    Raises:
        InputError: they are too large for the format.
    """
    most = _LARGEST.get(path.suffix.lower(), _LARGEST_ELSEWHERE)
    if largest > most:
        raise InputError(
            f"'{path.name}' holds labels up to {most}, and there is label {largest}",
            "End the file's name in "
            + (".png, or " if largest <= _LARGEST_ELSEWHERE else "")
            + ".seg.nrrd",
            code="label_not_held",
        )


def require_fractions_holdable(path: Path) -> None:
    """Checks that a file can hold numbers that are not whole; of pictures only TIFF can.

    Raises:
        InputError: the format holds whole numbers alone.
    """
    if path.suffix.lower() in (".png", ".bmp"):
        raise InputError(
            f"'{path.name}' can hold whole numbers only",
            "End the file's name in .tif",
            code="fractions_not_held",
        )


def write_picture(
    path: Path,
    array: NDArray[Any],
    geometry: Geometry,
    compress: bool,
    colours: Mapping[int, Colour] | None = None,
    text: str = "",
) -> bool:
    """Writes an array (1, j, i) and reads it back; the file's ending gives the format.

    If all present labels have a colour and are at most 255, they become the indices of a palette;
    otherwise the file has grey values. TIFF and PNG files tell the spacing in the way that ITK
    reads it, so that in 3D Slicer a mask lies on a picture that tells its own; BMP files cannot.

    Args:
        path: the file.
        array: whole numbers from 0, or fractions (TIFF alone).
        geometry: gives the spacing.
        compress: whether to compress; BMP never is.
        colours: label -> red, green, blue from 0 to 1.
        text: kept in PNG and TIFF files.

    Returns:
        Whether the file has the same values when it is read again.

    Raises:
        OSError: the file cannot be written.
        InputError: the format cannot hold the values.
    """
    # Loaded where it is needed, as in `decoding`.
    from PIL import Image, PngImagePlugin

    pixels = np.ascontiguousarray(array[0])
    if pixels.dtype.kind == "f":
        require_fractions_holdable(path)
        pixels = pixels.astype(np.float32)
        picture = Image.fromarray(pixels)
    else:
        largest = int(pixels.max(initial=0))
        require_labels_holdable(path, largest)
        small = largest < _PALETTE_LENGTH
        pixels = pixels.astype(np.uint8 if small else np.uint16)
        picture = Image.fromarray(pixels)
        present = set(np.unique(pixels).tolist()) - {0}
        if small and present and present <= set(colours or {}):
            picture.putpalette(_palette(colours or {}, largest))
    told: dict[str, Any] = {}
    if path.suffix.lower() in _TIFF:
        told["compression"] = "tiff_adobe_deflate" if compress else None
        if geometry.spacing[:2] != (1.0, 1.0):
            told["dpi"] = tuple(_MM_PER_INCH / each for each in geometry.spacing[:2])
        if text:
            told["description"] = text
    elif path.suffix.lower() == ".png":
        told["compress_level"] = _COMPRESSION if compress else 0
        told["pnginfo"] = PngImagePlugin.PngInfo()
        if text:
            told["pnginfo"].add_itxt(KEYWORD, text)
    if path.suffix.lower() == ".png":
        content = io.BytesIO()
        picture.save(content, format="PNG", **told)
        path.write_bytes(_with_spacing(content.getvalue(), geometry.spacing[:2]))
    else:
        picture.save(path, **told)
    back = decode(path).array
    meant = pixels if pixels.dtype.kind == "f" else array[0]
    return np.array_equal(back, meant, equal_nan=pixels.dtype.kind == "f")


def _with_spacing(png: bytes, spacing: tuple[float, ...]) -> bytes:
    """A PNG file with the spacing in its chunk sCAL, in which ITK writes and reads it.

    ITK stores millimetres as if they were the metres of the chunk's definition, and takes 1 mm
    where there is no such chunk, also if the file tells pixels per metre (pHYs).
    """
    if spacing == (1.0, 1.0):
        return png
    across, down = (repr(float(each)).encode() for each in spacing)
    content = b"sCAL" + _METRES + across + b"\0" + down
    length, checksum = (struct.pack(">I", each) for each in (len(content) - 4, zlib.crc32(content)))
    return png[:_PNG_HEADER] + length + content + checksum + png[_PNG_HEADER:]


def _palette(colours: Mapping[int, Colour], largest: int) -> list[int]:
    """Red, green, blue of the indices 0 to `largest`; background and missing ones are black."""
    table = np.zeros((largest + 1, 3), np.uint8)
    for label, colour in colours.items():
        if 0 < label <= largest:
            table[label] = np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8)
    return [int(each) for each in table.ravel()]
