"""Examples of one slice: pictures with masks in colour, and 2-D images of other formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.loading import load_examples
from SAMFineTuneLib.jobs.schema import Example

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (40, 48), dtype=np.uint8)
MASK = np.zeros((40, 48), np.uint8)
MASK[5:20, 5:15], MASK[5:20, 20:40] = 1, 2


def in_colour(folder: Path, number: int, *colours: tuple[int, ...]) -> Example:
    picture, mask = folder / f"{number}.png", folder / f"{number}_mask.png"
    Image.fromarray(IMAGE + np.uint8(number)).save(picture)
    drawn = np.zeros((40, 48, 3), np.uint8)
    for place, colour in enumerate(colours):
        drawn[5:20, 5 + 14 * place : 15 + 14 * place] = colour
    Image.fromarray(drawn).save(mask)
    return Example(volume=picture, segmentation=mask)


def test_each_colour_is_one_structure_in_all_masks(tmp_path):
    shown = [(RED,), (BLUE, GREEN), (RED, BLUE), (GREEN,)]
    loaded = load_examples([in_colour(tmp_path, n, *each) for n, each in enumerate(shown)])
    numbers = {label.name: label.value for label in loaded.labels}
    assert set(numbers) == {"#ff0000", "#00ff00", "#0000ff"} and set(numbers.values()) == {1, 2, 3}
    colours = {label.value: label.colour for label in loaded.labels}
    assert colours[numbers["#0000ff"]] == (0, 0, 1)
    assert not any("number" in warning for warning in loaded.warnings)
    names = [label.name for label in loaded.labels]
    for each, drawn in zip(loaded.slices, shown, strict=True):
        classes = {names[n - 1] for n in np.unique(each.target) if 0 < n <= len(names)}
        assert classes == {"#{:02x}{:02x}{:02x}".format(*colour) for colour in drawn}


def flat(path: Path, array: np.ndarray) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("mask_ending", [None, "png"])
def test_2d_images_of_other_formats(tmp_path, ending, mask_ending):
    example = Example(
        volume=flat(tmp_path / f"v.{ending}", IMAGE),
        segmentation=flat(tmp_path / f"m.{mask_ending or ending}", MASK),
    )
    loaded = load_examples([example])
    assert len(loaded.slices) == 1 and [label.value for label in loaded.labels] == [1, 2]
    assert sorted(np.bincount(loaded.slices[0].target.ravel())[1:3]) == [150, 300]


@pytest.mark.parametrize("spread", [(0, 1), (1, 2), (0, 2)])
def test_a_slice_placed_in_space_is_cut_along_its_normal(tmp_path, spread):
    paths = tmp_path / "v.nrrd", tmp_path / "m.nrrd"
    axes = np.eye(3)[list(spread)]
    directions = " ".join("(" + ",".join(f"{part:g}" for part in axis) + ")" for axis in axes)
    for path, array in zip(paths, (IMAGE, MASK), strict=True):
        path.write_bytes(
            (
                "NRRD0004\ntype: uchar\ndimension: 2\nspace: left-posterior-superior\n"
                f"sizes: 48 40\nspace directions: {directions}\nencoding: raw\n"
                "space origin: (5,6,7)\n\n"
            ).encode()
            + array.tobytes()
        )
    loaded = load_examples([Example(volume=paths[0], segmentation=paths[1])])
    assert len(loaded.slices) == 1
    assert loaded.axis == {(0, 1): "axial", (1, 2): "sagittal", (0, 2): "coronal"}[spread]


def test_an_axis_across_a_picture_is_not_followed(tmp_path):
    example = in_colour(tmp_path, 0, RED).model_copy(update={"axis": "coronal"})
    loaded = load_examples([example])
    assert loaded.axis == "axial" and len(loaded.slices) == 1
    assert any("not cut along the coronal axis" in each for each in loaded.warnings)


def test_a_mask_of_another_size_is_refused(tmp_path):
    example = in_colour(tmp_path, 0, RED)
    Image.fromarray(MASK[:, :-1]).save(example.segmentation)
    with pytest.raises(InputError, match=r"0_mask\.png: .* 47 x 40 pixels and the image 48 x 40"):
        load_examples([example])
