"""The random walk, where its answer is known."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from SAMFineTuneLib.prediction import walked_gap
from SAMFineTuneLib.prediction.random_walk import random_walk
from SAMFineTuneLib.prediction.walked_gap import CroppedDistance, walk
from Testing.support.time_limits import require_faster

SPACING = (1.0, 1.0, 1.0)


def known_ends(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The first column is known to be inside, the last one to be outside."""
    known, inside = np.zeros(shape, bool), np.zeros(shape, bool)
    known[..., [0, -1]] = True
    inside[..., 0] = True
    return known, inside


def walked(levels: np.ndarray, prior: float | np.ndarray = 0.5, **changes: Any) -> np.ndarray:
    known, inside = known_ends(levels.shape[:3])
    shared = np.broadcast_to(np.float32(prior), known.shape)
    return random_walk(levels.astype(np.float32), known, inside, shared, SPACING, **changes)


def test_an_image_without_edges_leaves_the_prior_as_it_is() -> None:
    levels = np.zeros((3, 5, 11, 1))
    prior = np.linspace(0.9, 0.05, 11)
    found = walked(levels, prior)
    assert np.allclose(found[..., 1:-1], prior[1:-1], atol=0.01)
    assert (found[..., 0] == 1).all() and (found[..., -1] == 0).all()


@pytest.mark.parametrize("edge", [3, 8])
def test_an_edge_divides_inside_from_outside(edge: int) -> None:
    levels = np.zeros((3, 5, 11, 1))
    levels[:, :, edge:] = 1.0
    found = walked(levels)
    assert (found[..., :edge] > 0.5).all() and (found[..., edge:] < 0.5).all()


def test_units_and_brightness_of_an_image_do_not_matter() -> None:
    levels = np.random.default_rng(0).random((3, 6, 9, 1))
    assert np.allclose(walked(levels), walked(1000 * levels - 300), atol=1e-3)


def test_an_edge_in_one_of_several_images_is_enough() -> None:
    levels = np.zeros((3, 5, 11, 2))
    levels[:, :, 4:, 1] = 1.0
    found = walked(levels)
    assert (found[..., :4] > 0.5).all() and (found[..., 4:] < 0.5).all()


def test_nothing_unknown_is_nothing_to_find() -> None:
    inside = np.array([[[True, False]]])
    prior = np.zeros((1, 1, 2), np.float32)
    levels = np.zeros((1, 1, 2, 1), np.float32)
    found = random_walk(levels, np.ones_like(inside), inside, prior, SPACING)
    assert found.tolist() == [[[1.0, 0.0]]]


# A gap between drawn slices


def disc(side: int, radius: float) -> np.ndarray:
    """Distance to the outline of a disc in mm, positive inside."""
    y, x = np.mgrid[:side, :side]
    return (radius - np.hypot(y - side / 2, x - side / 2)).astype(np.float32)


def gap(side: int, radius: float, slices: int = 7) -> dict[int, CroppedDistance]:
    away = [float(min(each, slices - 1 - each)) for each in range(slices)]
    outline = disc(side, radius)
    return {
        number: CroppedDistance.of(outline, each, (1.0, 1.0)) for number, each in enumerate(away)
    }


def share_found(side: int, drawn: float, true: float) -> float:
    """DSC in the middle of a gap whose image shows a disc of another radius than was drawn."""
    truth, ends = disc(side, true) > 0, disc(side, drawn) > 0
    noise = np.random.default_rng(0).normal(0, 0.1, truth.shape)

    def levels(number: int) -> np.ndarray:
        return (ends if number in (0, 6) else truth) + noise

    box, found = walk(gap(side, drawn), levels, (1.0, 1.0), 1.0)
    assert list(found) == [1, 2, 3, 4, 5]
    mask = np.zeros(truth.shape, bool)
    mask[box] = found[3] > 0.5
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def test_an_outline_moves_to_the_edge_beside_it() -> None:
    drawn, true = disc(64, 14) > 0, disc(64, 16) > 0
    before = 2 * (drawn & true).sum() / (drawn.sum() + true.sum())
    assert before < 0.88 and share_found(64, 14, 16) > 0.98


@pytest.mark.parametrize(("limit", "voxels"), [("_MOST_VOXELS", 500), ("_MOST_IN_ALL", 5000)])
def test_many_voxels_are_walked_on_coarser_slices(
    limit: str, voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walked_gap, limit, voxels)
    sizes: list[tuple[int, ...]] = []

    def noted(levels: np.ndarray, *words: Any) -> np.ndarray:
        sizes.append(levels.shape)
        return random_walk(levels, *words)

    monkeypatch.setattr(walked_gap, "random_walk", noted)
    assert share_found(65, 14, 16) > 0.93
    assert len(sizes) == 1 and max(sizes[0][1:3]) < 30


def test_a_large_structure_takes_seconds() -> None:
    """A liver on slices of 512 pixels, twenty slices between two drawn ones."""
    outlines = gap(420, 180, slices=21)
    image = np.random.default_rng(0).random((420, 420)).astype(np.float32)

    began = time.monotonic()
    walk(outlines, lambda number: image, (0.8, 0.8), 1.0)
    require_faster(time.monotonic() - began, 30, "the walk")
