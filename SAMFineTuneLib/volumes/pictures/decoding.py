"""Decodes the pixels of a picture file: PNG, JPEG, TIFF or BMP.

Pillow reads most pictures; ITK reads TIFF, whose kinds of numbers Pillow does not all know, and
colours of 16 bits, which Pillow reduces to 8. Both give the same grey values, and rows and columns
in the order in which 3D Slicer shows them. In particular the EXIF orientation is not applied,
because ITK, and so Slicer, does not apply it either: masks drawn in Slicer then fit.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.pictures.segment_text import KEYWORD, SegmentText, told_by
from SAMFineTuneLib.volumes.quiet import itk_quiet

# Pillow is loaded where it is needed: the sample head is shown before any package is installed.
if TYPE_CHECKING:
    from PIL import Image, ImageFile

# The first bytes of the formats. BMP is recognised by the size of its second header, too, because
# two letters alone may begin any text.
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}

# More pixels are refused. It is Pillow's own limit, twice 2**30 / 12: a picture of 13,000 pixels
# along each side, 0.5 GB in colour; a network sees at most 1024 of them along a side.
MOST_PIXELS = 178_956_970

_ORIENTATION = 0x0112
_DESCRIPTION = 0x010E
_SIXTEEN_BITS = 16
_PNG_COLOUR_TYPES = {2, 6}
_PNG_GREY_AND_ALPHA = 4
# What Pillow reads of TIFF and ITK does not: one bit, palettes, grey with alpha, and colours that
# have to be converted.
_TIFF_BY_PILLOW = {"1", "P", "PA", "LA", "La", "CMYK", "YCbCr", "LAB"}
_CONVERTED = {"CMYK": "CMYK colours (for print)", "LAB": "CIELAB colours"}


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of a picture as its file has them.

    Attributes:
        array: grey values or indices of a palette, shape (j, i), or red, green, blue, (j, i, 3).
        palette: the colours of the indices, shape (n, 3), uint8; None for a picture without.
        hidden: pixels that are transparent throughout, shape (j, i); None where there are none.
        spacing: mm between pixels along i and j, 1 if the file does not tell it.
        remarks: what the user should know of how it was decoded, one sentence each.
        segments: what a text in the file says of its labels; None if there is none.
    """

    array: NDArray[Any]
    palette: NDArray[np.uint8] | None
    hidden: NDArray[np.bool_] | None
    spacing: tuple[float, float]
    remarks: tuple[str, ...]
    segments: SegmentText | None = None

    @property
    def coloured(self) -> NDArray[Any]:
        """The array with the palette's colours in place of their indices."""
        return self.array if self.palette is None else self.palette[self.array]


def is_picture(path: Path) -> bool:
    """Whether a file begins as a PNG, JPEG, TIFF of one page, or BMP file does.

    TIFF files of several pages are stacks of slices, which are read elsewhere.
    """
    try:
        start = _start(path)
    except OSError:
        return False
    # Slides in DICOM may be TIFF files as well.
    if start[128:132] == b"DICM":
        return False
    if start.startswith(_TIFFS):
        return _pages(path) < 2
    is_bmp = start[:2] == b"BM" and _number(start, "<I", 14) in _BMP_HEADERS
    return is_bmp or start.startswith((_PNG, _JPEG))


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF file does."""
    return _start(path).startswith(_TIFFS)


def decode(path: Path) -> Pixels:
    """The pixels of a picture for which `is_picture` holds.

    Raises:
        InputError: it is damaged, too large, or of a kind that cannot be read.
    """
    from PIL import Image

    _, spacing = header(path)
    segments = None
    try:
        _check_sums(path)
        with _in_words(path), Image.open(path) as picture:
            segments = _segments(picture)
            if not _is_for_itk(path, picture):
                return replace(_by_pillow(path, picture, spacing), segments=segments)
            remarks = tuple(_orientation_remark(path, picture))
    except Image.UnidentifiedImageError:
        remarks = ()
    array, hidden = _without_alpha(path, _by_itk(path))
    return Pixels(array, None, hidden, spacing, remarks, segments)


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The file as Pillow opens it.

    Raises:
        InputError: it is damaged, too large, or of a kind that Pillow does not know.
    """
    from PIL import Image

    try:
        with _in_words(path), Image.open(path) as picture:
            yield picture
    except Image.UnidentifiedImageError as error:
        raise _damaged(path) from error


def is_for_pillow(picture: ImageFile.ImageFile) -> bool:
    """Whether ITK cannot read a TIFF file of this kind."""
    return picture.mode in _TIFF_BY_PILLOW and _orientation(picture) == 1


def pixels_of_page(path: Path, picture: ImageFile.ImageFile) -> NDArray[Any]:
    """Grey values (j, i), or red, green, blue (j, i, 3), of the page that Pillow has before it.

    Pixels that are transparent throughout are black.
    """
    pixels = _by_pillow(path, picture, (1.0, 1.0))
    if pixels.hidden is None:
        return pixels.coloured
    array = pixels.coloured.copy()
    array[pixels.hidden] = 0
    return array


def header(path: Path) -> tuple[tuple[int, int], tuple[float, float]]:
    """The size and the spacing in mm of a picture, along i and j, from its header.

    Raises:
        InputError: it is damaged or too large.
    """
    from PIL import Image

    told = _header_by_itk(path)
    # Pillow says only that a picture is too large, and not its size.
    if told is not None and math.prod(told[0]) > MOST_PIXELS:
        raise _too_large(path, told[0])
    try:
        with _in_words(path), Image.open(path) as picture:
            size = picture.size
            # Pillow turns a TIFF file by its orientation, ITK does not.
            if picture.format == "TIFF" and told is not None:
                size = told[0]
    except Image.UnidentifiedImageError as error:
        if told is None:
            raise _damaged(path) from error
        size = told[0]
    return size, (1.0, 1.0) if told is None else told[1]


def _header_by_itk(path: Path) -> tuple[tuple[int, int], tuple[float, float]] | None:
    """The size and the spacing; None where ITK cannot read the file, such as BMP of one bit."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with itk_quiet():
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
    (width, height), (across, down) = reader.GetSize()[:2], reader.GetSpacing()[:2]
    return (int(width), int(height)), (float(across), float(down))


def _check_sums(path: Path) -> None:
    """Refuses a PNG file with changed bytes, of which Pillow would show what is left."""
    from PIL import Image

    with _in_words(path), Image.open(path) as picture:
        if picture.format == "PNG":
            picture.verify()


def _is_for_itk(path: Path, picture: ImageFile.ImageFile) -> bool:
    if picture.format == "TIFF":
        # Pillow turns a TIFF file by its orientation, ITK mirrors it at most.
        return not is_for_pillow(picture)
    return picture.format == "PNG" and _png_kind(path) in {
        (_SIXTEEN_BITS, colour) for colour in _PNG_COLOUR_TYPES
    }


def _by_pillow(path: Path, opened: ImageFile.ImageFile, spacing: tuple[float, float]) -> Pixels:
    remarks = _orientation_remark(path, opened)
    opened.load()
    picture: Image.Image = opened
    mode = picture.mode
    if mode in _CONVERTED:
        remarks.append(
            f"{path.name} has {_CONVERTED[mode]}; they were converted to red, green, blue"
        )
    if _png_kind(path) == (_SIXTEEN_BITS, _PNG_GREY_AND_ALPHA):
        remarks.append(
            f"{path.name} has 16 bits of grey beside its transparency; the upper 8 are read"
        )
    if mode == "P":
        return _of_indices(picture, spacing, tuple(remarks))
    told = picture.info.get("transparency")
    if mode in ("LA", "La", "PA", "RGBa"):
        picture, told = picture.convert("LA" if mode in ("LA", "La") else "RGBA"), None
    elif mode not in ("1", "L", "I", "RGB", "RGBA") and not mode.startswith("I;16"):
        picture = picture.convert("RGB")
    array = _plain(np.asarray(picture))
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array, hidden_by_alpha = _without_alpha(path, array)
        return Pixels(array, None, hidden_by_alpha, spacing, (*remarks,))
    return Pixels(array, None, _of_value(array, told), spacing, (*remarks,))


def _of_indices(
    picture: Image.Image, spacing: tuple[float, float], remarks: tuple[str, ...]
) -> Pixels:
    indices = np.asarray(picture)
    palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    # A damaged file may have indices beyond its palette.
    missing = max(int(indices.max()) + 1 - len(palette), 0)
    palette = np.concatenate([palette, np.zeros((missing, 3), np.uint8)])
    hidden = np.isin(indices, _transparent_indices(picture))
    return Pixels(indices, palette, hidden if hidden.any() else None, spacing, remarks)


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array with one bit as 0 and 255, and other numbers in the machine's own order of bytes.

    White is 255 at one bit as it is in the same picture of 8 bits: programs that make PNG files
    smaller turn one into the other.
    """
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    # Older versions of Pillow give PNG files of 16 bits in 32.
    if array.dtype == np.int32:
        return array.astype(np.uint16)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _by_itk(path: Path) -> NDArray[Any]:
    with itk_quiet():
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError as error:
            raise _damaged(path) from error
    array: NDArray[Any] = sitk.GetArrayFromImage(image)
    return array[0] if image.GetDimension() == 3 else array


def _without_alpha(
    path: Path, array: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The colours or grey values, and which pixels are transparent throughout."""
    if array.ndim == 2:
        return array, None
    channels = array.shape[2]
    if channels > 4:
        raise InputError(
            f"'{path}' has {channels} values a pixel, which is neither grey nor colour",
            "Save one of its channels, or three of them as red, green, blue",
            code="not_scalar",
        )
    hidden = array[..., -1] == 0 if channels in (2, 4) else np.zeros(array.shape[:2], np.bool_)
    seen = array[..., 0] if channels < 3 else array[..., :3]
    return np.ascontiguousarray(seen), hidden if hidden.any() else None


def _of_value(array: NDArray[Any], transparent: Any) -> NDArray[np.bool_] | None:
    """Which pixels have the grey value or colour that a PNG file declares to be transparent."""
    if transparent is None or isinstance(transparent, bytes):
        return None
    hidden: NDArray[np.bool_] = np.asarray(array == np.asarray(transparent), np.bool_)
    if array.ndim == 3:
        hidden = np.logical_and.reduce(hidden, axis=-1)
    return hidden if hidden.any() else None


def _transparent_indices(picture: Image.Image) -> list[int]:
    told = picture.info.get("transparency")
    if isinstance(told, int):
        return [told]
    return [index for index, alpha in enumerate(told or b"") if alpha == 0]


def _orientation_remark(path: Path, picture: Image.Image) -> list[str]:
    turned = _orientation(picture)
    if turned == 1:
        return []
    return [
        f"{path.name} asks viewers to turn or mirror it (EXIF orientation {turned}); it is read as "
        "it is stored, as 3D Slicer shows it, and its mask must lie the same way"
    ]


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1, upright, if it is not given."""
    try:
        told = int(picture.getexif().get(_ORIENTATION, 1))
    # A damaged EXIF block does not matter for the pixels.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1
    return told if 1 <= told <= 8 else 1


def _segments(picture: ImageFile.ImageFile) -> SegmentText | None:
    if picture.format == "TIFF":
        tags: Any = getattr(picture, "tag_v2", {})
        return told_by(tags.get(_DESCRIPTION))
    return told_by(picture.info.get(KEYWORD))


def _pages(path: Path) -> int:
    """The number of pages of a TIFF file; 1 if it cannot be counted."""
    from PIL import Image

    try:
        with _in_words(path), Image.open(path) as picture:
            return int(getattr(picture, "n_frames", 1))
    except (InputError, Image.UnidentifiedImageError):
        return 1


def _png_kind(path: Path) -> tuple[int, int] | None:
    """Bits of a sample and type of colour in the header of a PNG file; None for other files."""
    start = _start(path)
    return (start[24], start[25]) if start.startswith(_PNG) and len(start) > 25 else None


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(132)


def _number(content: bytes, kind: str, at: int) -> int | None:
    try:
        return int(struct.unpack_from(kind, content, at)[0])
    except struct.error:
        return None


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turns what Pillow raises for a damaged picture into one `InputError`.

    A picture that Pillow does not know raises `UnidentifiedImageError`; ITK may know it.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (Image.UnidentifiedImageError, InputError):
            raise
        except (Image.DecompressionBombError, MemoryError) as error:
            raise _too_large(path, None) from error
        except (
            *(ArithmeticError, AttributeError, EOFError, LookupError, OSError),
            *(SyntaxError, TypeError, ValueError, NotImplementedError),
            *(RuntimeError, struct.error, zlib.error),
        ) as error:
            raise _damaged(path) from error


def _too_large(path: Path, size: tuple[int, ...] | None) -> InputError:
    what = f"has {size[0]} x {size[1]} pixels, more than" if size else "has more pixels than"
    return InputError(
        f"'{path}' {what} can be read ({MOST_PIXELS // 1_000_000} million)",
        "Reduce it or cut it into parts",
        code="too_large",
    )


def _damaged(path: Path) -> InputError:
    return InputError(
        f"the picture '{path}' is damaged or ends too early",
        "Copy, download or export it again",
        code="damaged_image",
    )
