"""Random changes of a slice: the same for image and mask, repeatable, in place on average."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from SAMFineTuneLib.slices.augmentation import GeometricRange, SliceAugmentation
from SAMFineTuneLib.slices.square import SquareFit, square_positions

SIZE = 64
STILL = GeometricRange(0, 0, 0, 0, 0, 0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def disc(centre: tuple[float, float], radius: float) -> Tensor:
    y, x = np.mgrid[:SIZE, :SIZE]
    inside = np.hypot(y - centre[0], x - centre[1]) < radius
    return torch.from_numpy(inside.astype(np.float32))


def fit() -> SquareFit:
    return SquareFit(SIZE, SIZE, (1.0, 1.0), SIZE)


def test_a_seed_gives_one_augmentation_whatever_was_drawn_before() -> None:
    image = torch.rand(SIZE, SIZE)
    first, second = SliceAugmentation(SIZE), SliceAugmentation(SIZE)
    for seed in (7, 8, 2**32 - 1, 2**33):
        second.intensity(image, seed + 1)
        torch.rand(3)
        np.random.default_rng().random()
        assert torch.equal(first.positions(seed), second.positions(seed))
        assert torch.equal(first.intensity(image, seed), second.intensity(image, seed))
    assert not torch.equal(first.positions(7), first.positions(8))
    assert not torch.equal(first.intensity(image, 7), first.intensity(image, 8))


def test_an_augmentation_leaves_other_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    augmentation = SliceAugmentation(SIZE)
    augmentation.positions(1)
    augmentation.intensity(torch.rand(SIZE, SIZE, generator=torch.Generator()), 1)
    assert torch.equal(torch.rand(4), expected)


def test_no_range_is_no_change() -> None:
    positions = SliceAugmentation(SIZE, STILL).positions(5)
    assert torch.allclose(positions, square_positions(SIZE), atol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_image_and_mask_move_alike(seed: int) -> None:
    shape = disc((30, 26), 14)
    positions = SliceAugmentation(SIZE).positions(seed)
    image = fit().image_to_square(shape, positions)
    mask = fit().mask_to_square(shape.to(torch.uint8), positions)
    apart = ((image > 0.5) != (mask > 0)).float().mean()
    assert mask.sum() > 200
    # They differ at most in how the outline is rounded.
    assert apart < 0.01


def test_slices_stay_in_place_on_average() -> None:
    augmentation = SliceAugmentation(SIZE)
    moved = torch.stack([augmentation.positions(seed) for seed in range(300)])
    mean = moved.mean(0)
    assert (mean - square_positions(SIZE)).abs().max() < 0.05
    # And they do move: several pixels away from the centre.
    corner = moved[:, 0, 0] - square_positions(SIZE)[0, 0]
    assert corner.norm(dim=1).mean() > 0.1


def turn_of(positions: Tensor) -> float:
    """Degrees between the square's rows before and after."""
    across = (positions[:, -8:] - positions[:, :8]).mean((0, 1))
    return math.degrees(math.atan2(float(across[1]), float(across[0])))


def test_there_are_no_flips_and_no_quarter_turns() -> None:
    augmentation = SliceAugmentation(SIZE)
    turns = []
    for seed in range(200):
        positions = augmentation.positions(seed)
        along_x = (positions[:, -1, 0] - positions[:, 0, 0]).mean()
        along_y = (positions[-1, :, 1] - positions[0, :, 1]).mean()
        assert along_x > 0 and along_y > 0
        turns.append(turn_of(positions))
    assert max(map(abs, turns)) < 50
    assert np.std(turns) == pytest.approx(GeometricRange().rotation, rel=0.3)


def test_structures_keep_about_their_size() -> None:
    augmentation = SliceAugmentation(SIZE)
    mask = disc((32, 32), 12).to(torch.uint8)
    areas = [
        float(fit().mask_to_square(mask, augmentation.positions(seed)).sum() / mask.sum())
        for seed in range(100)
    ]
    assert 0.85 < float(np.median(areas)) < 1.15
    assert min(areas) > 0.4 and max(areas) < 2.5


def test_grey_levels_change_but_what_is_brighter_stays_so() -> None:
    augmentation = SliceAugmentation(SIZE)
    shape = disc((32, 32), 14)
    image = 0.3 + 0.4 * shape
    for seed in range(40):
        changed = augmentation.intensity(image, seed)
        assert type(changed) is Tensor and changed.shape == image.shape
        assert changed.dtype == torch.float32 and changed.isfinite().all()
        assert changed[shape > 0].mean() > changed[shape == 0].mean()
    assert torch.equal(image, 0.3 + 0.4 * shape), "the image itself is left as it was"


@pytest.mark.filterwarnings("ignore:The image's intensity is a single value")
def test_an_even_slice_stays_finite() -> None:
    augmentation = SliceAugmentation(SIZE)
    for seed in range(20):
        assert augmentation.intensity(torch.zeros(SIZE, SIZE), seed).isfinite().all()
