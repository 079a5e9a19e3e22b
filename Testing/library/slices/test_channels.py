"""Colour images and several images of a case as slices, levels and pixels for the networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.slices.augmentation import SliceAugmentation
from SAMFineTuneLib.slices.expected_images import as_expected
from SAMFineTuneLib.slices.intensity import (
    ChannelWindows,
    IntensityNormalisation,
    IntensityWindow,
    find_normalisation,
    sample_voxels,
)
from SAMFineTuneLib.slices.pixels import channels_first, network_pixels
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Volume
from Testing.support.synthetic_volumes import geometry_of

SHAPE = (3, 8, 10)
GREY = IntensityNormalisation(kind="percentiles")
COLOUR = IntensityNormalisation(kind="colour")


def colour_volume(kind: type = np.uint8, white: int = 255) -> Volume:
    array = np.random.default_rng(0).integers(0, white + 1, (*SHAPE, 3)).astype(kind)
    return Volume(array, geometry_of(SHAPE), is_colour=True)


def grey_volume(seed: int = 1) -> Volume:
    array = np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)
    return Volume(array, geometry_of(SHAPE))


def two_images(modalities: tuple[str | None, str | None] = ("MR", "MR")) -> Volume:
    arrays = [grey_volume().array, 1000 + 5 * grey_volume(2).array]
    return Volume(
        np.stack(arrays, axis=-1),
        geometry_of(SHAPE),
        modalities[0],
        further_modalities=modalities[1:],
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_has_its_channels_last_and_is_turned_as_a_grey_one(axis: int) -> None:
    colours = colour_volume()
    stack = SliceStack(colours.array, colours.geometry, axis)
    red = SliceStack(colours.array[..., 0], colours.geometry, axis)
    for number in range(len(red)):
        assert np.array_equal(stack[number][..., 0], red[number])
    assert stack.slice_shape == red[0].shape and len(stack) == len(red)


@pytest.mark.parametrize(
    ("kind", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.uint16, 4095)]
)
def test_colours_keep_their_proportions(kind: type, white: int) -> None:
    volume = colour_volume(kind, white)
    volume.array[0, 0, 0] = white
    sample = sample_voxels(volume)
    normalisation = find_normalisation([sample])
    assert normalisation.kind == "colour" and normalisation.images == 1
    levels = normalisation.window_for(sample).apply(volume.array[0])
    assert np.allclose(levels, volume.array[0] / white, atol=1e-6)


def test_grey_images_among_colours_have_equal_channels() -> None:
    grey = Volume(np.arange(240, dtype=np.uint8).reshape(SHAPE), geometry_of(SHAPE))
    sample = sample_voxels(grey)
    assert find_normalisation([sample, sample_voxels(colour_volume())]).kind == "colour"
    levels = COLOUR.window_for(sample).apply(grey.array[1])
    assert levels.shape == (8, 10, 3)
    assert np.allclose(levels, grey.array[1][..., None] / 255, atol=1e-6)


def test_each_image_of_a_case_has_a_window_of_its_own() -> None:
    volume = two_images()
    sample = sample_voxels(volume)
    normalisation = find_normalisation([sample])
    assert normalisation.images == 2 and not sample.is_colour
    window = normalisation.window_for(sample)
    assert isinstance(window, ChannelWindows)
    levels = window.apply(volume.array[1])
    for channel, alone in enumerate((grey_volume(), Volume(volume.array[..., 1], volume.geometry))):
        own = sample_voxels(alone)
        expected = find_normalisation([own]).window_for(own).apply(alone.array[1])
        assert np.allclose(levels[..., channel], expected)
    again = IntensityNormalisation.model_validate_json(normalisation.model_dump_json())
    assert again == normalisation


def test_calibrated_images_beside_others_keep_their_window() -> None:
    sample = sample_voxels(two_images(("CT", "PT")))
    normalisation = find_normalisation([sample])
    assert normalisation.kind == "calibrated" and normalisation.window is not None
    assert [each.kind for each in normalisation.further] == ["percentiles"]


def test_a_constant_image_of_a_case_is_named() -> None:
    array = two_images().array.copy()
    array[..., 1] = 7
    volume = Volume(array, geometry_of(SHAPE), further_modalities=(None,))
    with pytest.raises(InputError, match="image 2 of the case has the same value"):
        sample_voxels(volume)


def test_what_a_model_expects() -> None:
    colours, grey, two = colour_volume(), grey_volume(), two_images()
    assert as_expected(grey, COLOUR, "g") is grey and as_expected(colours, COLOUR, "c") is colours
    dark = as_expected(colours, GREY, "c.png")
    assert dark.array.shape == SHAPE and not dark.is_colour
    assert np.allclose(dark.array, colours.array @ [0.299, 0.587, 0.114], atol=1e-3)
    assert any("c.png is in colour" in each for each in dark.remarks)
    both = find_normalisation([sample_voxels(two)])
    assert as_expected(two, both, "t") is two
    with pytest.raises(InputError, match="cases of 2 images: t1, flair, in this order"):
        as_expected(grey, both, "g", ("t1", "flair"))
    with pytest.raises(InputError, match="2 images, and the model was tuned on cases of 1 image"):
        as_expected(two, COLOUR, "t")


def window(mean: float, deviation: float) -> IntensityWindow:
    return IntensityWindow(low=0, high=1, mean=mean, standard_deviation=deviation)


def test_pixels_of_grey_colour_and_two_images() -> None:
    image = torch.rand(3, 16, 16)
    three = ChannelWindows((window(0.1, 0.5), window(0.2, 0.25), window(0.3, 1.0)))
    mean, deviation = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 1.0])
    expected = (image - mean[:, None, None]) / deviation[:, None, None]
    assert torch.allclose(network_pixels(image, three, "unit"), expected)
    grey = network_pixels(image[0], window(0.1, 0.5), "unit")
    assert torch.allclose(grey, expected[:1].expand(3, -1, -1))
    two = network_pixels(image[:2], ChannelWindows(three.windows[:2]), "unit")
    assert torch.allclose(two, torch.stack([expected[0], expected[1], expected[:2].mean(0)]))
    red = torch.zeros(3, 4, 4)
    red[0] = 1
    sam = network_pixels(red, three, "sam")[:, 0, 0]
    assert sam.tolist() == pytest.approx(
        [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    )


def test_weights_trained_on_images_from_0_to_1_get_them_so() -> None:
    image = torch.rand(16, 16)
    pixels = network_pixels(image, window(0.1, 0.5), "zero_to_one")
    assert torch.equal(pixels, image.expand(3, -1, -1))


def test_channels_lie_on_the_square_as_a_grey_image_does() -> None:
    image = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
    fit = SquareFit(20, 30, (1.0, 2.0), 64)
    whole = fit.image_to_square(channels_first(image))
    for channel in range(3):
        alone = fit.image_to_square(channels_first(image[..., channel]))
        assert torch.equal(whole[channel], alone)


def test_a_tint_is_slight_and_the_images_of_a_case_change_independently() -> None:
    image = torch.rand(3, 32, 32)
    image[:] = image[:1].clone()
    tinted = SliceAugmentation(32, normalisation=COLOUR)
    seen = torch.stack([tinted.intensity(image, seed) for seed in range(40)])
    assert seen.shape == (40, 3, 32, 32)
    means = seen.mean((2, 3))
    apart = (means - means.mean(1, keepdim=True)).abs().amax(1)
    assert 0.005 < apart.max() < 0.12
    two = SliceAugmentation(32, normalisation=GREY.model_copy(update={"further": (GREY,)}))
    changed = torch.stack([two.intensity(image[:2], seed) for seed in range(40)]).mean((2, 3))
    correlation = np.corrcoef(changed.T.numpy())[0, 1]
    assert abs(correlation) < 0.5
    assert torch.equal(two.intensity(image[:2], 3), two.intensity(image[:2], 3))
