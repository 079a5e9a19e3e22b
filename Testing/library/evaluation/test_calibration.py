"""Calibration and rank correlation, against values that are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from SAMFineTuneLib.evaluation.calibration import (
    CalibrationBins,
    claimed_dsc,
    claimed_voxels,
    rank_correlation,
)


def two_classes(second: list[float]) -> np.ndarray:
    share = np.array(second)
    return np.stack([1 - share, share])


def error_of(second: list[float], truth: list[int]) -> float | None:
    bins = CalibrationBins()
    bins.add(two_classes(second), np.array(truth))
    return bins.error


def test_confidence_beyond_what_is_right_is_the_error() -> None:
    """Ten voxels at 0.9, seven of which are right."""
    assert error_of([0.9] * 10, [1] * 7 + [0] * 3) == pytest.approx(0.2)
    assert error_of([0.9] * 10, [1] * 9 + [0]) == pytest.approx(0)
    # Too little confidence is as wrong as too much.
    assert error_of([0.6] * 10, [1] * 10) == pytest.approx(0.4)


def test_bins_count_by_their_voxels() -> None:
    """At 0.9 six voxels of which 0.4 too few are right, at 0.6 two that are 0.4 too often."""
    found = error_of([0.9] * 6 + [0.6] * 2, [1, 1, 1, 0, 0, 0, 1, 1])
    assert found == pytest.approx((6 * 0.4 + 2 * 0.4) / 8)
    # Within one bin errors of both signs balance: 0.81 and 0.85 are both in 12/15 to 13/15.
    assert error_of([0.81, 0.85], [1, 0]) == pytest.approx(abs(0.83 - 0.5))


def test_slices_can_be_added_one_by_one() -> None:
    whole, parts = CalibrationBins(), CalibrationBins()
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([0.4] * 3, 400).T.reshape(3, 20, 20)
    truth = random.integers(0, 3, (20, 20))
    whole.add(probabilities, truth)
    for row in range(20):
        parts.add(probabilities[:, row], truth[row])
    assert whole.error is not None and whole.error > 0.1
    assert parts.error == pytest.approx(whole.error)
    assert CalibrationBins().error is None


def test_certainty_belongs_to_the_last_bin() -> None:
    assert error_of([1.0, 1.0, 0.0, 0.0], [1, 1, 0, 1]) == pytest.approx(0.25)


def test_empty_background_does_not_count_where_structures_are_claimed() -> None:
    probabilities, truth = two_classes([0.0, 0.009, 0.01, 0.9, 0.001]), np.array([0, 0, 0, 0, 1])
    counted = claimed_voxels(probabilities, truth)
    assert counted.tolist() == [False, False, True, True, True]
    bins = CalibrationBins()
    bins.add(probabilities, truth, counted)
    # Right at 0.99, wrong at 0.9, wrong at 0.999: two bins.
    assert bins.error == pytest.approx((abs(0.99 + 0.999 - 1) + 0.9) / 3)


def test_several_structures_claim_one_by_one() -> None:
    """None of three has 0.01, though all together have more."""
    probabilities = np.array([0.973, 0.009, 0.009, 0.009])[:, None]
    assert not claimed_voxels(probabilities, np.array([0])).any()


def test_ranks_are_compared_and_not_values() -> None:
    assert rank_correlation([1, 2, 3], [0.1, 10, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [9, 2, 1]) == pytest.approx(-1)
    # Rank differences 0, 1, -1, 0: 1 - 6 * 2 / (4 * 15).
    assert rank_correlation([1, 2, 3, 4], [5, 7, 6, 8]) == pytest.approx(0.8)
    # Equal values share ranks 2 and 3.
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_where_there_is_nothing_to_compare_there_is_no_correlation() -> None:
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1, 2, 3], [0, 0, 0]) is None
    with pytest.raises(ValueError, match="no pairs"):
        rank_correlation([1, 2, 3], [1, 2])


def test_a_slice_is_right_where_both_name_the_same_structure() -> None:
    truth = np.array([[0, 1, 1], [0, 2, 2]])
    assert claimed_dsc(truth, truth) == 1.0
    # Of four named voxels in each, two agree; one is of the other structure, one is missed.
    found = np.array([[3, 1, 2], [0, 2, 0]])
    assert claimed_dsc(found, truth) == pytest.approx(2 * 2 / (4 + 4))
    assert claimed_dsc(np.zeros_like(truth), truth) == 0.0
    assert claimed_dsc(np.zeros_like(truth), np.zeros_like(truth)) is None
