"""Reads a picture as a mask: its values, its palette's indices or its colours are labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.colour import colours_or_grey
from SAMFineTuneLib.volumes.labelmap import Colour, present_labels, smallest_label_type
from SAMFineTuneLib.volumes.pictures.decoding import Pixels, decode
from SAMFineTuneLib.volumes.pictures.image import picture_geometry

# Pictures with more values are no masks: smoothed edges and JPEG compression give a value to every
# mixture of two colours, some hundred of them at a single edge between black and white.
MOST_VALUES = 64

# A colour picture that is grey throughout holds numbers of labels (1, 2, 3, ...) or shades. Shades
# from here on are named by their colour, so that white is the same structure in a mask that shows
# other colours beside it and in one that does not.
_DARKEST_SHADE = 64


@dataclass(frozen=True, eq=False)
class PictureMask:
    """The labels of a mask.

    Attributes:
        array: labels, shape (1, j, i), 0 is background.
        geometry: that of the picture.
        names: label -> its colour as #rrggbb, for labels that are told by colours, or the name in a
            file that this program wrote.
        colours: label -> red, green, blue from 0 to 1.
        terminologies: label -> 3D Slicer's terminology entry, in a file that this program wrote.
        remarks: what the user should know of how it was read, one sentence each.
    """

    array: NDArray[Any]
    geometry: Geometry
    names: dict[int, str] = field(default_factory=dict)
    colours: dict[int, Colour] = field(default_factory=dict)
    terminologies: dict[int, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def read_mask(path: Path, any_number: bool = False) -> PictureMask:
    """The mask of a picture file for which `is_picture` holds.

    * Grey values are labels as they are (0/255, 0/1/2, 16 bits); 0 is background.
    * Indices of a palette are labels with the palette's colours. Index 0 is background if the
      palette makes it black, which all programs do that write labels. A palette that a program
      derived from a picture in colour has its colours in any order: there black is background
      wherever it stands, and without black the most frequent colour, with a remark; the label at
      index 0 then gets the number of the background's index.
    * Of a picture in colour each colour but black is a label, numbered by ascending #rrggbb.
    * Transparent pixels are background.

    A label with a colour is named by it, #rrggbb: masks that do not all show the same colours
    number them differently, and labels are matched by name.

    Args:
        path: the file.
        any_number: accept more than `MOST_VALUES` grey values or indices.

    Raises:
        InputError: the picture is damaged or too large, its values are not whole numbers, or there
            are too many of them for a mask.
    """
    pixels = decode(path)
    is_colour = pixels.array.ndim == 3
    if pixels.palette is not None:
        labels, names, colours, remarks = _of_palette(path, pixels, pixels.palette, any_number)
    else:
        values = colours_or_grey(pixels.array[None], path.name)[0][0] if is_colour else pixels.array
        if values.ndim == 3:
            labels, names, colours, remarks = _of_colours(path, values, pixels.hidden)
        else:
            labels, remarks = _shown(values, pixels.hidden), ()
            if not any_number:
                _refuse_many(path, _distinct(labels))
            names, colours = _of_shades(labels) if is_colour else ({}, {})
    terms: dict[int, str] = {}
    if pixels.segments is not None:
        names, terms = pixels.segments
    return PictureMask(
        labels[None], picture_geometry(path), names, colours, terms, (*pixels.remarks, *remarks)
    )


def _refuse_many(path: Path, count: int) -> None:
    """Refuses a picture with more values or colours than a mask has.

    Raises:
        InputError: it names the number and the likely reasons.
    """
    if count > MOST_VALUES:
        raise InputError(
            f"'{path}' is no mask: it has {count} different values or colours, as an image has, or "
            "a mask whose edges were smoothed (anti-aliasing) or that was saved with loss (JPEG)",
            f"A mask has at most {MOST_VALUES}, one for each structure: threshold it, and save it "
            "as PNG without anti-aliasing",
            code="smoothed_mask",
        )


def _distinct(values: NDArray[Any]) -> int:
    """How many different values there are; counting is much faster than sorting."""
    if values.dtype in (np.uint8, np.uint16):
        return int(np.count_nonzero(np.bincount(values.ravel())))
    return len(np.unique(values))


_Told = tuple[NDArray[Any], dict[int, str], dict[int, Colour], tuple[str, ...]]


def _of_palette(path: Path, pixels: Pixels, palette: NDArray[np.uint8], any_number: bool) -> _Told:
    hidden = pixels.hidden
    seen = pixels.array if hidden is None else pixels.array[~hidden]
    counts = np.bincount(seen.ravel(), minlength=len(palette))
    background, remarks = _background(path, pixels, counts, palette)
    numbers = np.arange(len(palette))
    numbers[[0, background]] = numbers[[background, 0]]
    if not any_number:
        _refuse_many(path, int(np.count_nonzero(counts)))
    labels = numbers.astype(smallest_label_type(len(palette)))[pixels.array]
    used = {int(numbers[n]): tuple(palette[n].tolist()) for n in np.flatnonzero(counts)}
    used.pop(0, None)
    # A grey ramp has no colours of its own: its indices are grey values.
    if all(colour == (label,) * 3 for label, colour in used.items()):
        return _shown(labels, hidden), {}, {}, remarks
    coloured = {label: colour for label, colour in used.items() if any(colour)}
    names = {label: _hexadecimal(colour) for label, colour in coloured.items()}
    told = list(names.values())
    names = {label: name for label, name in names.items() if told.count(name) == 1}
    return _shown(labels, hidden), names, _fractions(coloured, 255), remarks


def _background(
    path: Path, pixels: Pixels, counts: NDArray[Any], palette: NDArray[np.uint8]
) -> tuple[int, tuple[str, ...]]:
    """The index of the background, and a remark where it was guessed."""
    black = palette.max(axis=1) == 0
    if black[0]:
        return 0, ()
    if pixels.hidden is not None:
        return int(np.bincount(pixels.array[pixels.hidden]).argmax()), ()
    if (black & (counts > 0)).any():
        return int(np.flatnonzero(black & (counts > 0))[0]), ()
    most = int(counts.argmax())
    if most == 0:
        return 0, ()
    colour = _hexadecimal(tuple(palette[most].tolist()))
    return most, (
        f"{path.name} shows no black; its most frequent colour, {colour}, is taken as background",
    )


def _of_colours(path: Path, array: NDArray[Any], hidden: NDArray[np.bool_] | None) -> _Told:
    if array.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"'{path}' is no mask: its colours are numbers of the kind {array.dtype}",
            "Save it as PNG, which has colours of 8 or 16 bits",
            code="not_integral",
        )
    bits = 8 * array.dtype.itemsize
    wide = array.astype(np.uint32 if bits == 8 else np.uint64)
    values = (wide[..., 0] << (2 * bits)) | (wide[..., 1] << bits) | wide[..., 2]
    if hidden is not None:
        values[hidden] = 0
    distinct = np.unique(values)
    # Too many of them are refused before they become labels, of which there cannot be millions.
    _refuse_many(path, len(distinct))
    first = 0 if distinct[0] == 0 else 1
    labels = (np.searchsorted(distinct, values) + first).astype(np.uint8)
    colours = {
        number + first: tuple(
            (int(value) >> shift) & ((1 << bits) - 1) for shift in (2 * bits, bits, 0)
        )
        for number, value in enumerate(distinct)
        if value
    }
    remarks = (
        ()
        if first == 0
        else (f"{path.name} shows no black, which is background: every pixel is labelled",)
    )
    names = {label: _hexadecimal(colour, bits) for label, colour in colours.items()}
    return labels, names, _fractions(colours, (1 << bits) - 1), remarks


def _of_shades(labels: NDArray[Any]) -> tuple[dict[int, str], dict[int, Colour]]:
    """Names and colours of the shades in a colour picture that is grey throughout."""
    if labels.dtype != np.uint8:
        return {}, {}
    shades = {value: (value,) * 3 for value in present_labels(labels) if value >= _DARKEST_SHADE}
    return {value: _hexadecimal(each) for value, each in shades.items()}, _fractions(shades, 255)


def _shown(labels: NDArray[Any], hidden: NDArray[np.bool_] | None) -> NDArray[Any]:
    return labels if hidden is None else np.where(hidden, 0, labels).astype(labels.dtype)


def _hexadecimal(colour: tuple[int, ...], bits: int = 8) -> str:
    """#rrggbb; #rrrrggggbbbb for 16 bits, unless 8 say the same."""
    if bits == 16 and all(part % 257 == 0 for part in colour):
        colour, bits = tuple(part // 257 for part in colour), 8
    return "#" + "".join(f"{part:0{bits // 4}x}" for part in colour)


def _fractions(colours: Mapping[int, tuple[int, ...]], largest: int) -> dict[int, Colour]:
    return {
        label: (colour[0] / largest, colour[1] / largest, colour[2] / largest)
        for label, colour in colours.items()
    }
