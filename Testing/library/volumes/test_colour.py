"""Colour images: red, green and blue are kept, and what only looks like colour is grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import read_labelmap, read_volume
from SAMFineTuneLib.volumes.colour import brightness


def colours(values: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (4, 6, 5, values)).astype(np.uint8)


def written(path: Path, array: np.ndarray) -> Path:
    image = sitk.GetImageFromArray(array, isVector=True)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((5.0, 6.0, 7.0))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd"])
def test_vectors_of_three_are_colours(tmp_path: Path, ending: str) -> None:
    array = colours()
    volume = read_volume(written(tmp_path / f"c{ending}", array))
    assert volume.is_colour and volume.images == 1
    assert volume.array.dtype == np.uint8 and np.array_equal(volume.array, array)
    assert volume.geometry.origin == (5.0, 6.0, 7.0) and volume.geometry.size == (5, 6, 4)


def test_equal_channels_are_grey(tmp_path: Path) -> None:
    grey = np.repeat(colours()[..., :1], 3, axis=-1)
    volume = read_volume(written(tmp_path / "grey.nrrd", grey))
    assert not volume.is_colour and np.array_equal(volume.array, grey[..., 0])


def test_opacity_is_dropped_and_what_it_hides_is_black(tmp_path: Path) -> None:
    array = colours(4)
    array[..., 3] = 255
    array[2, 3, 1:3, 3] = 0
    volume = read_volume(written(tmp_path / "rgba.nrrd", array))
    assert not volume.array[2, 3, 1:3].any() and volume.array[2, 3, 0].any()
    array[..., 3] = 7
    whole = read_volume(written(tmp_path / "thin.nrrd", array))
    assert np.array_equal(whole.array, array[..., :3])
    assert any("2 voxels of rgba.nrrd are transparent" in each for each in volume.remarks)
    assert not any("transparent" in each for each in whole.remarks)


def test_two_values_a_voxel_are_no_colours(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 values a voxel") as told:
        read_volume(written(tmp_path / "flow.nrrd", colours(2)))
    assert told.value.code == "not_scalar" and "images of one case" in told.value.remedy


def test_colours_are_no_segmentation(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 values a voxel"):
        read_labelmap(written(tmp_path / "c.nrrd", colours()))


def test_green_is_brighter_than_blue() -> None:
    pure = np.eye(3)[None, None] * 255
    assert brightness(pure)[0, 0].round().tolist() == [76.0, 150.0, 29.0]
