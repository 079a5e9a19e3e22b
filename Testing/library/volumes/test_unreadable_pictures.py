"""Pictures that cannot be read, or not rightly: each is refused in words."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import read_grid, read_labelmap, read_volume

NOISE = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)


def refusal(read, path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path)
    error = caught.value
    assert path.name in error.message and error.remedy and error.code
    assert "\n" not in str(error) and "ITK" not in str(error) and "PIL" not in str(error)
    return error


@pytest.mark.parametrize("read", [read_volume, read_labelmap])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
@pytest.mark.parametrize("kept", [0.3, 0.97])
def test_cut_off(tmp_path, capfd, name, kept, read):
    for array in (NOISE, NOISE[..., 0]):
        path = tmp_path / name
        Image.fromarray(array).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * kept)])
        assert refusal(read, path).code == "damaged_image"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_nothing_but_the_beginning(tmp_path, name):
    Image.fromarray(NOISE).save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    refusal(read_volume, tmp_path / name)
    refusal(read_grid, tmp_path / name)


def test_bytes_turned_over(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    content = bytearray(path.read_bytes())
    content[3000:3050] = bytes(50)
    path.write_bytes(bytes(content))
    assert refusal(read_volume, path).code == "damaged_image"


@pytest.mark.parametrize("read", [read_volume, read_labelmap])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_no_byte_at_all_and_a_text(tmp_path, name, read):
    path = tmp_path / name
    path.write_bytes(b"")
    assert "empty" in refusal(read, path).message
    path.write_text("BM: notes on the picture")
    assert "PNG, JPEG, TIFF, BMP" in refusal(read, path).remedy


def header_of(width: int, height: int) -> bytes:
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = struct.pack(">I", 13) + content + struct.pack(">I", zlib.crc32(content))
    return b"\x89PNG\r\n\x1a\n" + start


@pytest.mark.parametrize("read", [read_volume, read_labelmap, read_grid])
@pytest.mark.parametrize("size", [(20_000, 20_000), (2_000_000_000, 2_000_000_000)])
def test_more_pixels_than_fit_into_memory(tmp_path, size, read):
    path = tmp_path / "a.png"
    path.write_bytes(header_of(*size) + struct.pack(">I", 10) + b"IDAT" + bytes(14))
    error = refusal(read, path)
    assert error.code in ("too_large", "damaged_image")
    if size[0] == 20_000:
        assert "20000 x 20000" in error.message


def test_five_channels(tmp_path):
    import SimpleITK as sitk

    five = np.zeros((20, 30, 5), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(five, isVector=True), str(tmp_path / "a.tif"))
    assert "5 values" in refusal(read_volume, tmp_path / "a.tif").message
