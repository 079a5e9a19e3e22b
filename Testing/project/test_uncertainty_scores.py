"""The benchmark of uncertainty: slices that were made up, with scores that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from SAMFineTuneLib.evaluation.calibration import CLAIMED, EVERYWHERE
from Testing.benchmarks.uncertainty import (
    PredictedSlice,
    Trial,
    best_temperature,
    report,
    scores_at,
)

SIDE = 40

pytestmark = pytest.mark.usefixtures("one_thread")


def a_slice(share: float, wrong: int, volume: int = 0) -> PredictedSlice:
    """Ten rows of structure 1 at a probability, of so many of whose 400 pixels it is not true."""
    probabilities = torch.zeros(2, SIDE, SIDE)
    probabilities[1, :10] = share
    probabilities[0] = 1 - probabilities[1]
    truth = np.zeros(SIDE * SIDE, np.int64)
    truth[wrong:400] = 1
    return PredictedSlice(volume, probabilities, truth.reshape(SIDE, SIDE))


def test_empty_background_is_in_one_of_the_two_errors() -> None:
    """0.9 where half is right, on a quarter of the slice."""
    scores = scores_at(1.0, [a_slice(0.9, 200)])
    assert scores[CLAIMED] == pytest.approx(0.4)
    assert scores[EVERYWHERE] == pytest.approx(0.1)


def test_uncertain_slices_that_are_wrong_correlate() -> None:
    slices = [a_slice(0.9, 10), a_slice(0.8, 100), a_slice(0.6, 300)]
    assert scores_at(1.0, slices)["rank"] == pytest.approx(1)
    reversed_slices = [a_slice(0.6, 10), a_slice(0.8, 100), a_slice(0.9, 300)]
    assert scores_at(1.0, reversed_slices)["rank"] == pytest.approx(-1)


def test_volumes_can_differ_from_all_slices_together() -> None:
    """Within each volume the uncertain ones are wrong; the surer volume is the worse one."""
    sure = [a_slice(share, wrong, 0) for share, wrong in ((0.99, 300), (0.98, 310), (0.97, 320))]
    unsure = [a_slice(share, wrong, 1) for share, wrong in ((0.7, 10), (0.65, 20), (0.6, 30))]
    scores = scores_at(1.0, sure + unsure)
    assert scores["rank_in_volume"] == pytest.approx(1)
    assert scores["rank"] is not None and scores["rank"] < 0


def test_the_best_temperature_makes_the_error_smaller() -> None:
    slices = [a_slice(0.99, 100) for _ in range(3)]
    best = best_temperature(slices)
    # At 0.75, as many as are right: the logit of 0.99 over that of 0.75.
    assert best == pytest.approx(np.log(99) / np.log(3), rel=0.01)
    assert scores_at(best, slices)[CLAIMED] == pytest.approx(0, abs=0.01)
    assert scores_at(1.0, slices)[CLAIMED] == pytest.approx(0.24)


def test_a_table_has_a_row_for_each_temperature() -> None:
    slices = [a_slice(0.9, 10)]
    trial = Trial({"1": scores_at(1.0, slices), "of the card": scores_at(2.0, slices)}, 0.9, 3, 1.0)
    rows = report("task", [trial, trial]).splitlines()
    assert len(rows) == 4 and "2.000 (2.000 to 2.000)" in rows[3]
    # A single slice correlates with nothing.
    assert rows[2].count(" - ") == 2
