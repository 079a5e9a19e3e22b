"""TIFF files of several pages are stacks of slices, in grey and in colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from SAMFineTuneLib.volumes import (
    Geometry,
    Labelmap,
    labelmap_onto,
    read_grid,
    read_labelmap,
    read_time,
    read_volume,
)
from Testing.support.volume_geometries import refused

VALUES = np.random.default_rng(0).integers(0, 255, (3, 10, 12, 4)).astype(np.uint8)
GREY, COLOUR = VALUES[..., 0], VALUES[..., :3]


def pages(path: Path, listed: list[Image.Image], **told: object) -> Path:
    listed[0].save(path, save_all=True, append_images=listed[1:], **told)
    return path


def of(array: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(each) for each in array]


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize(
    "array", [GREY, GREY.astype(np.uint16) * 200, GREY.astype(np.float32) / 7, COLOUR]
)
def test_each_page_is_a_slice(tmp_path, array, compression):
    path = pages(tmp_path / "s.tif", of(array), compression=compression)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype == array.dtype and volume.is_colour == (array.ndim == 4)
    assert read_grid(path).size == (12, 10, 3) and read_time(path).frames == 1


def test_kinds_that_only_pillow_reads(tmp_path):
    indexed = [each.convert("P", palette=Image.Palette.ADAPTIVE) for each in of(COLOUR)]
    volume = read_volume(pages(tmp_path / "palette.tif", indexed))
    expected = np.stack([np.asarray(each.convert("RGB")) for each in indexed])
    np.testing.assert_array_equal(volume.array, expected)

    bits = pages(tmp_path / "bits.tif", of(GREY > 100), dpi=(254, 127))
    volume = read_volume(bits)
    np.testing.assert_array_equal(volume.array, (GREY > 100) * 255)
    assert volume.geometry.spacing == pytest.approx((0.1, 0.2, 1.0))
    assert read_grid(bits).same_as(volume.geometry)

    print_colours = [Image.fromarray(each, "CMYK") for each in VALUES]
    volume = read_volume(pages(tmp_path / "print.tif", print_colours))
    expected = np.stack([np.asarray(each.convert("RGB")) for each in print_colours])
    np.testing.assert_array_equal(volume.array, expected)


def test_pages_that_differ_are_refused(tmp_path):
    first, second = of(GREY[:2])
    path = pages(tmp_path / "larger.tif", [first.crop((0, 0, 9, 8)), second])
    error = refused(read_volume, path)
    assert error.code == "other_size" and "page 2 has 12 x 10 pixels" in error.message
    path = pages(tmp_path / "mixed.tif", [first, *of(COLOUR[:1])])
    error = refused(read_volume, path)
    assert error.code == "not_scalar" and "page 2 is in colour" in error.message


def test_a_stack_of_masks(tmp_path):
    labels = (GREY % 3).astype(np.uint8)
    path = pages(tmp_path / "masks.tif", of(labels))
    np.testing.assert_array_equal(read_labelmap(path).array, labels)
    assert refused(read_labelmap, pages(tmp_path / "c.tif", of(COLOUR))).code == "not_scalar"
    assert refused(read_volume, path, frame=1).code == "no_such_frame"


def test_a_mask_is_laid_over_its_image_page_by_page(tmp_path):
    image = read_volume(pages(tmp_path / "i.tif", of(GREY), dpi=(254, 254)))
    labels = (GREY % 3).astype(np.uint8)
    mask = read_labelmap(pages(tmp_path / "m.tif", of(labels)))
    assert image.geometry.spacing != mask.geometry.spacing
    np.testing.assert_array_equal(labelmap_onto(mask, image.geometry).array, labels)
    fewer = read_labelmap(pages(tmp_path / "f.tif", of(labels[:2])))
    error = refused(labelmap_onto, fewer, image.geometry)
    assert error.code == "other_size" and "2 pages of 12 x 10" in error.message
    one = Geometry((12, 10, 1), (0.1, 0.1, 1.0), (0.0, 0.0, 1.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    laid = labelmap_onto(Labelmap(labels[1:2], one), image.geometry)
    np.testing.assert_array_equal(laid.array, np.where([[[0]], [[1]], [[0]]], labels, 0))
