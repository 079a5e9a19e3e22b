"""NSD and Hausdorff distance of held-out slices, against values that are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from SAMFineTuneLib.evaluation import evaluate
from SAMFineTuneLib.evaluation.surface import TOLERANCE_MM
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.jobs.schema import EvaluateJob
from SAMFineTuneLib.slices.intensity import IntensityWindow
from SAMFineTuneLib.training.held_out_distances import distances_between
from SAMFineTuneLib.volumes import Geometry, Labelmap

WINDOW = IntensityWindow(low=0, high=1, mean=0.5, standard_deviation=1)
# A square of 10 × 10 pixels has 36 on its outline. If it is shifted by three columns, then the ten
# of one column and four of the opposite one, which are inside the other square, are three pixels
# away from the other outline, and all others less.
FAR = 14 / 36


def square(column: int, number: int = 1) -> np.ndarray:
    pixels = np.zeros((20, 24), np.uint8)
    pixels[5:15, column : column + 10] = number
    return pixels


def slice_of(
    target: np.ndarray, spacing: tuple[float, float], known: tuple[bool, ...] = (True, True)
) -> LabelledSlice:
    image = np.zeros(target.shape, np.float16)
    return LabelledSlice(image, target, np.array(known), WINDOW, spacing, 0, 0)


def test_three_pixels_of_half_a_millimetre_are_within_the_tolerance() -> None:
    found = distances_between([(slice_of(square(5), (0.5, 0.5)), square(8))])
    assert found.nsd == {1: 1.0} and found.hd95_mm == {1: pytest.approx(1.5)}
    assert found.tolerance_mm == 2.0


def test_each_slice_counts_at_its_own_spacing() -> None:
    fine, coarse = slice_of(square(5), (0.5, 0.5)), slice_of(square(5), (0.5, 1.0))
    found = distances_between([(coarse, square(8))])
    # Rows of half a millimetre bring the upper or the lower edge near to all pixels inside.
    assert found.nsd == {1: pytest.approx(1 - 10 / 36)}
    assert found.hd95_mm == {1: pytest.approx(3.0)}
    whole = distances_between([(slice_of(square(5), (1.0, 1.0)), square(8)), (fine, square(8))])
    assert whole.nsd == {1: pytest.approx((1 - FAR + 1) / 2)}
    assert whole.hd95_mm == {1: pytest.approx((3.0 + 1.5) / 2)}


def test_slices_on_which_one_lacks_the_structure() -> None:
    """They count in the NSD with 0, and have no distance; slices that both lack it on count not."""
    nothing = square(5, 0)
    missed, invented = slice_of(square(5), (0.5, 0.5)), slice_of(nothing, (0.5, 0.5))
    pairs = [(missed, nothing), (invented, square(5)), (invented, nothing), (missed, square(8))]
    found = distances_between(pairs)
    assert found.nsd == {1: pytest.approx(1 / 3)} and found.hd95_mm == {1: pytest.approx(1.5)}
    assert distances_between(pairs[:2]).hd95_mm == {1: None}
    empty = distances_between(pairs[2:3])
    assert empty.nsd == {1: None} and empty.hd95_mm == {1: None}


def test_a_class_is_measured_where_it_is_known() -> None:
    unknown = slice_of(square(5), (1.0, 1.0), (True, True, False))
    known = slice_of(square(5, 2), (1.0, 1.0), (True, True, True))
    found = distances_between([(unknown, square(5, 2)), (known, square(5, 2))])
    assert found.nsd == {1: 0.0, 2: 1.0} and found.hd95_mm == {1: None, 2: 0.0}


def test_the_figures_are_those_of_evaluate_on_chosen_slices() -> None:
    random = np.random.default_rng(0)
    true, predicted = (random.integers(0, 3, (3, 9, 11)).astype(np.uint8) for _ in range(2))
    grid = Geometry((11, 9, 3), (0.7, 2.5, 4), (0, 0, 0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    report = evaluate(Labelmap(predicted, grid), Labelmap(true, grid), slices=range(3))
    slices = [slice_of(each, (2.5, 0.7), (True, True, True)) for each in true]
    found = distances_between(zip(slices, predicted, strict=True))
    for row in report.labels:
        assert found.nsd[row.label] == pytest.approx(row.nsd)
        assert found.hd95_mm[row.label] == pytest.approx(row.hd95_mm)
    assert found.tolerance_mm == report.tolerance_mm == TOLERANCE_MM
    assert EvaluateJob.model_fields["tolerance_mm"].default == TOLERANCE_MM
