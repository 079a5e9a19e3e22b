"""Slices smoothed by those above and below: what they change, and what they may not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from SAMFineTuneLib.prediction.neighbour_smoothing import (
    NeighbourSmoothing,
    Slice,
    neighbours_vote,
)

SIDE = 12
SLICES = 12
INSIDE = (slice(4, 8), slice(4, 8))


def smoothed(
    shares: Mapping[int, float], images: NDArray[np.float32], spacing: float = 1.0
) -> list[float]:
    """The structure's probability in the middle of a square, by slice.

    Args:
        shares: slice -> probability that was predicted in the square; 0.01 elsewhere.
        images: (slices, rows, columns).
        spacing: mm between slices.
    """
    smoothing, found = NeighbourSmoothing(spacing), []
    for number, image in enumerate(images):
        probabilities = torch.full((2, SIDE, SIDE), 0.01)
        probabilities[1][INSIDE] = shares.get(number, 0.01)
        probabilities[0] = 1 - probabilities[1]
        found += smoothing.add(Slice(number, probabilities, None), image)
        assert len(found) <= number + 1
    found += smoothing.rest()
    assert [each.number for each in found] == list(range(len(images)))
    for each in found:
        assert torch.allclose(each.probabilities.sum(0), torch.ones(SIDE, SIDE), atol=1e-3)
    return [float(each.probabilities[1, 5, 5]) for each in found]


def same_images() -> NDArray[np.float32]:
    return np.full((SLICES, SIDE, SIDE), 0.5, np.float32)


def shows(found: list[float]) -> list[int]:
    return [number for number, share in enumerate(found) if share > 0.5]


def test_what_is_missed_on_one_slice_is_found_by_its_neighbours() -> None:
    shares = dict.fromkeys(range(9), 0.9) | {4: 0.3}
    assert shows(smoothed(shares, same_images())) == list(range(9))


def test_what_is_found_on_one_slice_alone_is_outvoted() -> None:
    assert shows(smoothed({5: 0.7}, same_images())) == []


def test_an_end_stays_where_it_is() -> None:
    """Both with images that change there and with images that do not tell."""
    shares = dict.fromkeys(range(6), 0.95)
    assert shows(smoothed(shares, same_images())) == list(range(6))
    images = same_images()
    images[:6][(slice(None), *INSIDE)] = 0.9
    found = smoothed(shares, images)
    assert shows(found) == list(range(6))
    assert min(found[:6]) > 0.9 and max(found[6:]) < 0.05


def test_a_thin_structure_that_the_image_shows_stays() -> None:
    images = same_images()
    images[5][INSIDE] = 0.9
    assert shows(smoothed({5: 0.7}, images)) == [5]


def test_thick_slices_are_not_smoothed() -> None:
    assert neighbours_vote(1.0) and neighbours_vote(3.3) and not neighbours_vote(5.0)
    shares = dict.fromkeys(range(3, 9), 0.9) | {5: 0.3}
    thick = smoothed(shares, same_images(), spacing=5.0)
    assert [thick[number] for number in (4, 5, 6)] == pytest.approx([0.9, 0.3, 0.9], abs=2e-3)


def test_slices_that_are_left_out_have_no_vote() -> None:
    smoothing, found = NeighbourSmoothing(1.0), []
    probabilities = torch.full((2, SIDE, SIDE), 0.5)
    numbers = [0, 1, 9, 11]
    for number in numbers:
        found += smoothing.add(Slice(number, probabilities, None), same_images()[number])
        assert len(smoothing._window) <= 9
    found += smoothing.rest()
    assert [each.number for each in found] == numbers


def test_only_a_window_of_slices_is_kept() -> None:
    smoothing = NeighbourSmoothing(0.1)
    probabilities = torch.full((2, SIDE, SIDE), 0.5)
    done = 0
    for number in range(50):
        done += len(list(smoothing.add(Slice(number, probabilities, None), same_images()[0])))
        assert len(smoothing._window) <= 9
    assert done == 46 and len(list(smoothing.rest())) == 4


def test_colour_images() -> None:
    images = np.repeat(same_images()[..., None], 3, axis=-1)
    shares = dict.fromkeys(range(9), 0.9) | {4: 0.3}
    assert shows(smoothed(shares, images)) == list(range(9))
    images[4, :, :, 0] = 1.0
    assert shows(smoothed(shares, images)) == [0, 1, 2, 3, 5, 6, 7, 8]
