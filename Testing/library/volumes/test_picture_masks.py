"""Pictures as masks: values, palettes and colours as labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, ImageDraw

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import read_labelmap
from SAMFineTuneLib.volumes.label_matching import match_labels, named_labels

BLACK, RED, GREEN, WHITE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 255)
# Background is most frequent, then 1, then 2.
LABELS = np.zeros((20, 30), np.uint8)
LABELS[5:15, 5:15] = 1
LABELS[5:15, 20:25] = 2


def grey(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def coloured(path: Path, labels: np.ndarray, *colours: tuple[int, ...]) -> Path:
    return grey(path, np.array(colours, np.uint8)[labels])


def indexed(path: Path, indices: np.ndarray, *colours: tuple[int, ...], **options: Any) -> Path:
    picture = Image.fromarray(indices.astype(np.uint8))
    picture.putpalette([part for colour in colours for part in colour])
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("values", [(0, 255), (0, 1, 2), (0, 128, 255), (0, 300, 40_000)])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_values_are_labels(tmp_path, values, ending):
    kind = np.uint16 if max(values) > 255 else np.uint8
    array = np.array(values, kind)[LABELS % len(values)]
    labelmap = read_labelmap(grey(tmp_path / f"m.{ending}", array))
    np.testing.assert_array_equal(labelmap.array[0], array)
    assert labelmap.labels == sorted({*values} - {0})
    assert not labelmap.names and not labelmap.colours and not labelmap.remarks


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_white_of_one_bit_is_255(tmp_path, ending):
    labelmap = read_labelmap(grey(tmp_path / f"m.{ending}", LABELS > 0))
    np.testing.assert_array_equal(labelmap.array[0], (LABELS > 0) * 255)


def test_whole_numbers_stored_as_fractions(tmp_path):
    labelmap = read_labelmap(grey(tmp_path / "m.tif", LABELS.astype(np.float32)))
    np.testing.assert_array_equal(labelmap.array[0], LABELS)
    with pytest.raises(InputError, match="whole") as caught:
        read_labelmap(grey(tmp_path / "m.tif", LABELS.astype(np.float32) * 0.3))
    assert caught.value.code == "not_integral"


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_a_palette_gives_labels_their_colours(tmp_path, ending):
    labelmap = read_labelmap(indexed(tmp_path / f"m.{ending}", LABELS, BLACK, RED, (0, 0, 51)))
    np.testing.assert_array_equal(labelmap.array[0], LABELS)
    assert labelmap.colours == {1: (1, 0, 0), 2: (0, 0, 0.2)}
    assert labelmap.names == {1: "#ff0000", 2: "#000033"}


def test_a_grey_ramp_is_no_palette(tmp_path):
    ramp = [(n, n, n) for n in range(256)]
    labelmap = read_labelmap(indexed(tmp_path / "m.png", LABELS * 100, *ramp))
    np.testing.assert_array_equal(labelmap.array[0], LABELS * 100)
    assert not labelmap.names and not labelmap.colours


class TestTheBackgroundOfAPalette:
    def test_black_at_index_0_is_background_even_where_nothing_shows_it(self, tmp_path):
        full = np.where(LABELS == 0, 1, 2)
        labelmap = read_labelmap(indexed(tmp_path / "m.png", full, BLACK, RED, GREEN))
        np.testing.assert_array_equal(labelmap.array[0], full)

    def test_black_elsewhere_is_background(self, tmp_path):
        # As a program orders colours that derives a palette from a picture.
        swapped = np.array([2, 0, 1])[LABELS]
        labelmap = read_labelmap(indexed(tmp_path / "m.png", swapped, RED, GREEN, BLACK))
        np.testing.assert_array_equal(labelmap.array[0], np.array([0, 2, 1])[LABELS])
        assert labelmap.names == {2: "#ff0000", 1: "#00ff00"} and not labelmap.remarks

    def test_without_black_the_most_frequent_colour_is_and_it_is_said(self, tmp_path):
        swapped = np.array([1, 0, 2])[LABELS]
        labelmap = read_labelmap(indexed(tmp_path / "m.png", swapped, RED, WHITE, GREEN))
        np.testing.assert_array_equal(labelmap.array[0], LABELS)
        assert labelmap.names == {1: "#ff0000", 2: "#00ff00"}
        assert "#ffffff, is taken as background" in labelmap.remarks[0]

    def test_coloured_at_index_0(self, tmp_path):
        labelmap = read_labelmap(indexed(tmp_path / "m.png", LABELS, WHITE, RED, GREEN))
        np.testing.assert_array_equal(labelmap.array[0], LABELS)
        assert not labelmap.remarks

    def test_transparent_is_background(self, tmp_path):
        swapped = np.array([1, 0, 2])[LABELS]
        path = indexed(tmp_path / "m.png", swapped, RED, WHITE, GREEN, transparency=1)
        labelmap = read_labelmap(path)
        np.testing.assert_array_equal(labelmap.array[0], LABELS)
        assert labelmap.names == {1: "#ff0000", 2: "#00ff00"} and not labelmap.remarks

    def test_two_labels_of_one_colour_have_no_name(self, tmp_path):
        labelmap = read_labelmap(indexed(tmp_path / "m.png", LABELS, BLACK, RED, RED))
        np.testing.assert_array_equal(labelmap.array[0], LABELS)
        assert labelmap.colours == {1: (1, 0, 0), 2: (1, 0, 0)} and not labelmap.names


class TestColours:
    def test_each_is_a_label_numbered_by_its_value(self, tmp_path):
        labelmap = read_labelmap(coloured(tmp_path / "m.png", LABELS, BLACK, RED, GREEN))
        np.testing.assert_array_equal(labelmap.array[0], np.array([0, 2, 1])[LABELS])
        assert labelmap.names == {1: "#00ff00", 2: "#ff0000"}
        assert labelmap.colours == {1: (0, 1, 0), 2: (1, 0, 0)} and not labelmap.remarks

    def test_are_the_same_structure_in_masks_that_do_not_all_show_them(self, tmp_path):
        both = read_labelmap(coloured(tmp_path / "a.png", LABELS, BLACK, RED, GREEN))
        one = read_labelmap(coloured(tmp_path / "b.png", LABELS // 2, BLACK, RED, RED))
        indices = read_labelmap(indexed(tmp_path / "c.png", LABELS, BLACK, RED, GREEN))
        assert both.labels == [1, 2] and one.labels == [1]
        known = named_labels(both)
        assert match_labels(known, named_labels(one), "b", "a").numbers == {1: 2}
        assert match_labels(known, named_labels(indices), "c", "a").numbers == {1: 2, 2: 1}

    def test_are_different_structures_even_where_they_have_one_number(self, tmp_path):
        red = read_labelmap(coloured(tmp_path / "a.png", LABELS % 2, BLACK, RED))
        others = read_labelmap(coloured(tmp_path / "b.png", LABELS, BLACK, GREEN, WHITE))
        found = match_labels(named_labels(red), named_labels(others), "b", "a")
        assert red.labels == [1] and others.labels == [1, 2]
        assert found.new == {1, 2} and not found.contradictions and not found.remarks

    def test_white_is_the_same_structure_with_and_without_other_colours(self, tmp_path):
        alone = read_labelmap(coloured(tmp_path / "a.png", LABELS % 2, BLACK, WHITE))
        beside = read_labelmap(coloured(tmp_path / "b.png", LABELS, BLACK, WHITE, RED))
        assert alone.labels == [255] and alone.names == {255: "#ffffff"}
        found = match_labels(named_labels(alone), named_labels(beside), "b", "a")
        assert found.numbers[2] == 255

    def test_grey_numbers_in_three_channels_are_labels(self, tmp_path):
        labelmap = read_labelmap(coloured(tmp_path / "m.png", LABELS, BLACK, (1,) * 3, (2,) * 3))
        np.testing.assert_array_equal(labelmap.array[0], LABELS)
        assert not labelmap.names

    def test_transparent_pixels_are_background_and_half_transparent_ones_are_not(self, tmp_path):
        path = coloured(tmp_path / "m.png", LABELS, (*WHITE, 0), (*RED, 128), (*GREEN, 255))
        labelmap = read_labelmap(path)
        np.testing.assert_array_equal(labelmap.array[0], np.array([0, 2, 1])[LABELS])

    def test_without_black_every_pixel_is_labelled_and_it_is_said(self, tmp_path):
        labelmap = read_labelmap(coloured(tmp_path / "m.png", LABELS, WHITE, RED, GREEN))
        assert labelmap.array.min() == 1 and "no black" in labelmap.remarks[0]

    def test_of_sixteen_bits(self, tmp_path):
        table = np.array([BLACK, (65535, 0, 0), (1, 0, 0)], np.uint16)
        image = sitk.GetImageFromArray(table[LABELS], isVector=True)
        sitk.WriteImage(image, str(tmp_path / "m.png"))
        labelmap = read_labelmap(tmp_path / "m.png")
        np.testing.assert_array_equal(labelmap.array[0], np.array([0, 2, 1])[LABELS])
        assert labelmap.names == {1: "#000100000000", 2: "#ff0000"}


class TestNoMasks:
    def smoothed(self, path: Path, mode: str) -> Path:
        picture = Image.new(mode, (300, 300))
        ImageDraw.Draw(picture).ellipse((40, 40, 260, 200), fill="white")
        picture.resize((233, 233), Image.Resampling.LANCZOS).save(path)
        return path

    @pytest.mark.parametrize("name", ["m.png", "m.jpg"])
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_smoothed_edges(self, tmp_path, mode, name):
        with pytest.raises(InputError, match="anti-aliasing") as caught:
            read_labelmap(self.smoothed(tmp_path / name, mode))
        assert caught.value.code == "smoothed_mask" and "PNG" in caught.value.remedy

    def test_a_palette_of_smoothed_edges(self, tmp_path):
        self.smoothed(tmp_path / "m.png", "L")
        Image.open(tmp_path / "m.png").convert("RGB").quantize(200).save(tmp_path / "p.png")
        with pytest.raises(InputError, match="anti-aliasing"):
            read_labelmap(tmp_path / "p.png")

    def test_sixty_four_labels_are_accepted_and_more_if_they_are_named(self, tmp_path):
        array = np.repeat(np.arange(70, dtype=np.uint8), 10).reshape(70, 10)
        assert len(read_labelmap(grey(tmp_path / "m.png", array.clip(0, 63))).labels) == 63
        with pytest.raises(InputError, match="70 different values"):
            read_labelmap(grey(tmp_path / "m.png", array))
        assert len(read_labelmap(tmp_path / "m.png", wanted=[3]).labels) == 69

    @pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
    def test_without_a_label(self, tmp_path, mode):
        Image.new(mode, (30, 20)).save(tmp_path / "m.png")
        with pytest.raises(InputError, match="is empty") as caught:
            read_labelmap(tmp_path / "m.png")
        assert caught.value.code == "empty_segmentation"
        assert read_labelmap(tmp_path / "m.png", empty_ok=True).labels == []

    def test_negative_values(self, tmp_path):
        grey(tmp_path / "m.tif", LABELS.astype(np.int32) - 1)
        with pytest.raises(InputError, match="holds the value -1"):
            read_labelmap(tmp_path / "m.tif")
