"""Accepted masks propagated to other slices: what the image adds, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from SAMFineTuneLib.errors import Cancelled, InputError
from SAMFineTuneLib.geometry.shape_interpolation import interpolate
from SAMFineTuneLib.interactive.appearance import Appearance
from SAMFineTuneLib.interactive.networks import CorrectionNetworks, load_networks
from SAMFineTuneLib.interactive.propagation import PropagatedMasks, propagate
from SAMFineTuneLib.interactive.protocol import SessionSettings
from SAMFineTuneLib.interactive.slice_corrector import SliceCorrector
from SAMFineTuneLib.volumes import Volume
from Testing.support.synthetic_volumes import dsc, geometry_of

pytestmark = pytest.mark.usefixtures("one_thread")

Masks = NDArray[np.bool_]
SPACING = (1.0, 1.0, 3.0)
FIRST, LAST = 2, 18


def bent(shift: float, seed: int = 0) -> tuple[Volume, Masks]:
    """A bright rod from slice 2 to 18 of 21 that bends to the one side and then to the other.

    Args:
        shift: by how many pixels; 0 at the ends and in the middle.
        seed: of the noise.
    """
    shape = (21, 64, 64)
    z, y, x = np.indices(shape)
    moved = shift * np.sin((z - FIRST) * np.pi / 8)
    rod = (y - 30) ** 2 + (x - 32 - moved) ** 2 < 11**2
    truth: Masks = rod & (z >= FIRST) & (z <= LAST)
    image = np.where(truth, 400.0, 100.0) + np.random.default_rng(seed).normal(0, 15, shape)
    return Volume(image.astype(np.float32), geometry_of(shape, SPACING)), truth


@pytest.fixture(scope="module")
def networks() -> CorrectionNetworks:
    return load_networks(SessionSettings(volume=Path("unused"), device="cpu"), 64)


@pytest.fixture(scope="module")
def straight(networks: CorrectionNetworks) -> tuple[SliceCorrector, Masks]:
    volume, truth = bent(0)
    return SliceCorrector(volume, "axial", networks), truth


@pytest.fixture(scope="module")
def rod(networks: CorrectionNetworks) -> tuple[SliceCorrector, Masks]:
    volume, truth = bent(4)
    return SliceCorrector(volume, "axial", networks), truth


def accepted(truth: Masks, numbers: Sequence[int]) -> dict[int, Masks]:
    return {number: truth[number] for number in numbers}


def overlap(propagated: PropagatedMasks, truth: Masks, numbers: Sequence[int]) -> float:
    found = np.stack([propagated.masks[number] for number in numbers])
    return dsc(found, truth[list(numbers)])


def interpolated(truth: Masks, known: Sequence[int], numbers: Sequence[int]) -> float:
    found = interpolate(truth.astype(np.uint8), 0, {1: known}, SPACING[::-1]) > 0
    return dsc(found[list(numbers)], truth[list(numbers)])


@pytest.mark.parametrize("known", [(2, 10, 18), (2, 10), (2, 6, 14, 18)])
def test_between_accepted_slices_the_image_does_better_than_the_shape_alone(
    rod: tuple[SliceCorrector, Masks], known: tuple[int, ...]
) -> None:
    session, truth = rod
    numbers = [each for each in range(known[0], known[-1]) if each not in known]
    propagated = propagate(session, accepted(truth, known), None, outward=0, between=True)
    assert sorted(propagated.masks) == numbers == sorted(propagated.confidence)
    found, shape_alone = (
        overlap(propagated, truth, numbers),
        interpolated(truth, known, numbers),
    )
    assert found > shape_alone + 0.2 * (1 - shape_alone)
    assert all(0 <= each <= 1 for each in propagated.confidence.values())


def test_where_the_shape_is_right_the_image_does_no_harm(
    straight: tuple[SliceCorrector, Masks],
) -> None:
    session, truth = straight
    propagated = propagate(session, accepted(truth, (2, 10, 18)), None, outward=0, between=True)
    assert overlap(propagated, truth, sorted(propagated.masks)) > 0.98


def test_an_image_that_shows_nothing_leaves_the_shape_alone(networks: CorrectionNetworks) -> None:
    """Noise has nothing to do with the structure, which three slices tell."""
    _, truth = bent(4)
    noise = np.random.default_rng(5).normal(100, 15, truth.shape).astype(np.float32)
    session = SliceCorrector(Volume(noise, geometry_of((21, 64, 64), SPACING)), "axial", networks)
    known = (2, 6, 10, 14)
    numbers = [each for each in range(3, 14) if each not in known]
    propagated = propagate(session, accepted(truth, known), None, outward=0, between=True)
    assert overlap(propagated, truth, numbers) > interpolated(truth, known, numbers) - 0.01


def test_where_the_image_is_wrong_on_one_accepted_slice_the_shape_decides(
    rod: tuple[SliceCorrector, Masks],
) -> None:
    """The rod is drawn straight on slice 6, where the image shows it bent."""
    session, truth = rod
    known = (2, 6, 10, 14, 18)
    drawn = truth.astype(np.uint8)
    drawn[6] = interpolate(drawn, 0, {1: (2, 10)}, SPACING[::-1])[6]
    shape_alone = interpolate(drawn, 0, {1: known}, SPACING[::-1]) > 0
    propagated = propagate(session, accepted(drawn > 0, known), None, outward=0, between=True)
    for number, mask in propagated.masks.items():
        np.testing.assert_array_equal(mask, shape_alone[number])


def test_slices_of_one_grey_level_are_filled_by_shape(networks: CorrectionNetworks) -> None:
    volume, truth = bent(0)
    array = volume.array.copy()
    array[5:8] = 100
    array[11:] = 0
    session = SliceCorrector(Volume(array, volume.geometry), "axial", networks)
    propagated = propagate(session, accepted(truth, (2, 10, 18)), None, outward=2, between=True)
    numbers = [each for each in range(3, 18) if each != 10]
    assert overlap(propagated, truth, numbers) > 0.9


def test_outward_it_follows_the_structure_and_stops_where_that_ends(
    rod: tuple[SliceCorrector, Masks],
) -> None:
    session, truth = rod
    propagated = propagate(session, accepted(truth, (10,)), None, outward=20, between=True)
    assert sorted(propagated.masks) == [each for each in range(FIRST, LAST + 1) if each != 10]
    assert overlap(propagated, truth, sorted(propagated.masks)) > 0.85
    assert "stopped before slice 1:" in propagated.remark
    assert "stopped before slice 19:" in propagated.remark


def test_outward_goes_as_far_as_it_was_told(rod: tuple[SliceCorrector, Masks]) -> None:
    session, truth = rod
    known = accepted(truth, (8, 12))
    propagated = propagate(session, known, None, outward=2, between=False)
    assert sorted(propagated.masks) == [6, 7, 13, 14] and propagated.remark == ""
    propagated = propagate(session, known, None, outward=1, between=True)
    assert sorted(propagated.masks) == [7, 9, 10, 11, 13]
    assert propagate(session, known, None, outward=0, between=False).masks == {}


def test_it_ends_with_the_volume(networks: CorrectionNetworks) -> None:
    volume, truth = bent(0)
    part = slice(FIRST, LAST + 1)
    geometry = geometry_of((17, 64, 64), SPACING)
    session = SliceCorrector(Volume(volume.array[part], geometry), "axial", networks)
    truth = truth[part]
    propagated = propagate(session, accepted(truth, (0, 2)), None, outward=5, between=True)
    assert sorted(propagated.masks) == [1, 3, 4, 5, 6, 7]
    propagated = propagate(session, accepted(truth, (14, 16)), None, outward=1, between=True)
    assert sorted(propagated.masks) == [13, 15]


def test_empty_accepted_slices_say_that_the_structure_is_not_there(
    rod: tuple[SliceCorrector, Masks],
) -> None:
    session, truth = rod
    known = accepted(truth, (6, 12)) | {4: truth[0], 9: truth[0], 14: truth[0]}
    propagated = propagate(session, known, None, outward=5, between=True)
    # On their side of it nothing is filled, and nothing goes beyond them.
    assert set(propagated.masks) == {5, 13}
    assert not set(known) & set(propagated.masks)


def test_nothing_accepted_is_refused(rod: tuple[SliceCorrector, Masks]) -> None:
    session, truth = rod
    for known in ({}, {3: truth[0], 5: truth[0]}):
        with pytest.raises(InputError) as caught:
            propagate(session, known, None, outward=3, between=True)
        assert caught.value.code == "nothing_accepted"


def test_it_can_be_stopped_at_every_slice(rod: tuple[SliceCorrector, Masks]) -> None:
    session, truth = rod
    told: list[int] = []

    def stop(done: int, steps: int) -> None:
        assert done < steps == 16
        told.append(done)
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        propagate(session, accepted(truth, (2, 10, 18)), None, outward=0, between=True, check=stop)
    # While it tries whether the image and its edges help, too, before the first slice is done.
    assert told == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("size", [1, 64])
def test_tiny_and_huge_structures_do_not_break_it(networks: CorrectionNetworks, size: int) -> None:
    """Less than a pixel of what the network sees, and a whole slice."""
    shape = (6, 700, 700) if size < 64 else (6, 64, 64)
    image = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    session = SliceCorrector(Volume(image, geometry_of(shape, SPACING)), "axial", networks)
    mask = np.zeros(shape[1:], bool)
    mask[:size, :size] = True
    propagated = propagate(session, {1: mask, 3: mask, 5: mask}, None, outward=1, between=True)
    assert (propagated.masks[2] == mask).all() and (propagated.masks[4] == mask).all()
    assert all(np.isfinite(each) for each in propagated.confidence.values())


def test_a_slice_that_is_left_out_teaches_nothing(rod: tuple[SliceCorrector, Masks]) -> None:
    session, truth = rod
    both = Appearance(session, accepted(truth, (2, 10)))
    one = Appearance(session, accepted(truth, (2,)))
    assert np.allclose(both.without(10).logits(5), one.logits(5), atol=1e-4)
    assert not np.allclose(both.logits(5), one.logits(5), atol=1e-2)


def test_what_looks_like_the_structure_is_above_0(rod: tuple[SliceCorrector, Masks]) -> None:
    session, truth = rod
    appearance = Appearance(session, accepted(truth, (2, 10)))
    for number in (5, 13):
        logits = appearance.logits(number)
        assert logits.shape == (64, 64)
        assert dsc(logits > 0, truth[number]) > 0.9
