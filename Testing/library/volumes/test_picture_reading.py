"""PNG, JPEG, TIFF and BMP as volumes of one slice: values and place as ITK gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from SAMFineTuneLib.volumes import read_grid, read_volume
from SAMFineTuneLib.volumes.image_file import read_image

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = RANDOM.integers(0, 1 << 16, (5, 7)).astype(np.uint16)
COLOUR = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DEEP_COLOUR = RANDOM.integers(0, 1 << 16, (5, 7, 3)).astype(np.uint16)


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def by_itk(path: Path, image: sitk.Image) -> Path:
    sitk.WriteImage(image, str(path))
    return path


def deep_colour(path: Path) -> Path:
    return by_itk(path, sitk.GetImageFromArray(DEEP_COLOUR, isVector=True))


@pytest.mark.parametrize(
    ("name", "array", "options"),
    [
        ("a.png", GREY, {}),
        ("a.png", DEEP, {}),
        ("a.png", GREY > 100, {}),
        ("a.PNG", GREY, {"dpi": (254, 127)}),
        ("a.jpg", GREY, {}),
        ("a.jpeg", GREY, {"dpi": (254, 127)}),
        ("a.tif", GREY, {}),
        ("a.tif", GREY, {"dpi": (254, 127), "compression": "tiff_lzw"}),
        ("a.tiff", DEEP, {}),
        ("a.tif", GREY.astype(np.float32) / 7 - 3, {}),
        ("a.tif", GREY.astype(np.int32) - 100, {}),
        ("a.tif", GREY, {"tiffinfo": {262: 0}}),
        ("a.tif", GREY, {"tiffinfo": {274: 3}}),
        ("a.tif", GREY, {"tiffinfo": {274: 6}}),
        ("a.bmp", GREY, {}),
    ],
)
def test_grey_values_and_place_are_those_of_itk(tmp_path, name, array, options):
    path = saved(tmp_path / name, array, **options)
    told = sitk.ReadImage(str(path))
    seen = sitk.GetArrayFromImage(told)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array[0], seen if seen.ndim == 2 else seen[..., 0])
    assert volume.array.dtype == seen.dtype
    geometry = volume.geometry
    assert geometry == read_grid(path) and geometry.is_picture and read_grid(path).is_picture
    assert geometry.size == (7, 5, 1) and geometry.spacing == (*told.GetSpacing(), 1.0)
    assert geometry.origin == (0, 0, 0) and geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    # The file tells a spacing or the user is told which was assumed.
    assumed = any("taken as 1 mm" in remark for remark in volume.remarks)
    assert assumed == (told.GetSpacing() == (1.0, 1.0))


def test_signed_and_long_numbers_of_tiff(tmp_path):
    for kind in (np.int16, np.uint32, np.int8):
        array = (GREY.astype(np.int64) - (0 if kind is np.uint32 else 100)).clip(-100, 100)
        array = array.astype(kind)
        path = by_itk(tmp_path / f"{np.dtype(kind)}.tif", sitk.GetImageFromArray(array))
        np.testing.assert_array_equal(read_volume(path).array[0], array)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits_is_spread_over_eight(tmp_path, bits):
    values = GREY >> (8 - bits)
    rows = np.zeros((5, 8), np.uint8)
    rows[:, :7] = values
    packed = rows.reshape(5, -1, 8 // bits)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    lines = b"".join(
        b"\0" + (line << shifts).sum(axis=1).astype(np.uint8).tobytes() for line in packed
    )
    path = tmp_path / "a.png"
    path.write_bytes(png(7, 5, bits, 0, lines))
    spread = values * (255 // ((1 << bits) - 1))
    np.testing.assert_array_equal(read_volume(path).array[0], spread)
    np.testing.assert_array_equal(spread, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def png(width: int, height: int, bits: int, colour: int, lines: bytes) -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(lines)),
            chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_colour_is_red_green_blue(tmp_path, name):
    read = read_image(saved(tmp_path / name, COLOUR))
    assert read.array.shape == (1, 5, 7, 3) and read.array.dtype == np.uint8
    np.testing.assert_array_equal(read.array[0], COLOUR)


def test_colour_jpeg_is_nearly_what_itk_gives(tmp_path):
    smooth = np.stack([np.add.outer(np.arange(40), np.arange(60)) * f for f in (1, 2, 2.5)], -1)
    path = saved(tmp_path / "a.jpg", smooth.astype(np.uint8))
    seen = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    # The two libraries enlarge the halved colour channels in different ways.
    assert np.abs(read_image(path).array[0].astype(int) - seen).max() <= 12


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colour_of_sixteen_bits_keeps_them(tmp_path, name):
    read = read_image(deep_colour(tmp_path / name))
    assert read.array.dtype == np.uint16
    np.testing.assert_array_equal(read.array[0], DEEP_COLOUR)


def test_a_palette_is_read_as_its_colours(tmp_path):
    picture = Image.fromarray(GREY % 3)
    picture.putpalette([0, 0, 0, 250, 10, 20, 30, 200, 40])
    table = np.array([[0, 0, 0], [250, 10, 20], [30, 200, 40]], np.uint8)
    for name in ("a.png", "a.tif", "a.bmp"):
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name).array[0], table[GREY % 3])


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_colour_with_equal_channels_is_grey(tmp_path, name):
    volume = read_volume(saved(tmp_path / name, np.stack([GREY] * 3, axis=-1)))
    np.testing.assert_array_equal(volume.array[0], GREY)


@pytest.mark.parametrize("channels", [2, 4])
def test_opaque_alpha_is_dropped_and_hidden_pixels_are_black(tmp_path, channels):
    seen = GREY[..., None] if channels == 2 else COLOUR
    alpha = np.full((5, 7, 1), 255, np.uint8)
    opaque = read_image(saved(tmp_path / "a.png", np.concatenate([seen, alpha], axis=-1)))
    np.testing.assert_array_equal(opaque.array[0], np.squeeze(seen))
    assert not any("transparency" in remark for remark in opaque.remarks)
    # A pixel that is half transparent keeps its colour.
    alpha[0, 0], alpha[1] = 128, 0
    hidden = read_image(saved(tmp_path / "b.png", np.concatenate([seen, alpha], axis=-1)))
    shown = seen.copy()
    shown[1] = 0
    np.testing.assert_array_equal(hidden.array[0], np.squeeze(shown))
    assert any("hides 7 of its pixels" in remark for remark in hidden.remarks)


def test_a_value_or_an_index_that_is_declared_transparent_is_black(tmp_path):
    grey = saved(tmp_path / "a.png", GREY, transparency=int(GREY[0, 0]))
    assert read_volume(grey).array[0, 0, 0] == 0
    assert (read_volume(grey).array[0] == np.where(GREY[0, 0] == GREY, 0, GREY)).all()
    colour = saved(tmp_path / "b.png", COLOUR, transparency=tuple(COLOUR[1, 2].tolist()))
    assert not read_image(colour).array[0, 1, 2].any() and read_image(colour).array[0, 0, 0].any()
    picture = Image.fromarray(GREY % 2)
    picture.putpalette([9, 8, 7, 6, 5, 4])
    picture.save(tmp_path / "c.png", transparency=0)
    expected = np.where((GREY % 2)[..., None] == 0, 0, [6, 5, 4])
    np.testing.assert_array_equal(read_image(tmp_path / "c.png").array[0], expected)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_is_converted_and_said(tmp_path, name):
    Image.new("CMYK", (7, 5), (0, 255, 255, 0)).save(tmp_path / name)
    read = read_image(tmp_path / name)
    red, green, blue = read.array[0, 2, 3].astype(int)
    assert red > 240 and green < 15 and blue < 15
    assert any("CMYK" in remark for remark in read.remarks)


def test_orientation_is_left_alone_as_itk_does_and_said(tmp_path):
    told = Image.Exif()
    told[0x0112] = 6
    path = saved(tmp_path / "a.jpg", GREY, exif=told)
    volume = read_volume(path)
    assert volume.geometry.size == (7, 5, 1)
    seen = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(volume.array[0], seen)
    assert any("EXIF orientation 6" in remark for remark in volume.remarks)


@pytest.mark.parametrize("mode", ["P", "CMYK", "RGB"])
def test_orientation_of_colour_in_tiff(tmp_path, mode):
    picture = Image.fromarray(COLOUR).convert(mode)
    picture.save(tmp_path / "a.tif", tiffinfo={274: 3})
    read = read_image(tmp_path / "a.tif")
    seen = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.tif")))
    np.testing.assert_array_equal(read.array[0], seen[..., :3])
    assert any("EXIF orientation 3" in remark for remark in read.remarks)


def test_pages_of_a_tiff_are_slices(tmp_path):
    """Like a picture, they do not say where they lie."""
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array, [GREY, 255 - GREY])
    assert volume.geometry.is_picture


def test_a_volume_in_colour(tmp_path):
    volume = read_volume(saved(tmp_path / "a.png", COLOUR))
    assert volume.is_colour and volume.array.shape == (1, 5, 7, 3)
    grey = read_volume(saved(tmp_path / "b.png", np.stack([GREY] * 3, axis=-1)))
    assert not grey.is_colour and grey.array.shape == (1, 5, 7)


def test_the_content_decides_and_not_the_name(tmp_path):
    saved(tmp_path / "a.png", GREY)
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.jpg").array[0], GREY)
