"""What the labelled slices of a training set tell of the shape of structures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from SAMFineTuneLib.examples.example_labels import Label
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.models.structure_shape import StructureShape
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, IntensityWindow
from SAMFineTuneLib.tasks.structure_shapes import structure_shapes

WINDOW = IntensityWindow(low=0, high=1, curve=[0.0, 1.0], mean=0.5, standard_deviation=0.2)
SIDE = 32
Square = tuple[int, int, int]


def slice_of(
    *squares: Square, number: int = 0, volume: int = 0, known: bool = True, label: int = 1
) -> LabelledSlice:
    """Squares of class 1, each with its first row, first column and side."""
    target = np.zeros((SIDE, SIDE), np.uint8)
    for row, column, side in squares:
        target[row : row + side, column : column + side] = label
    return LabelledSlice(
        image=np.zeros((SIDE, SIDE), np.float16),
        target=target,
        known=np.array([True, known, True]),
        window=WINDOW,
        spacing=(2.0, 0.5),
        volume=volume,
        number=number,
    )


def shapes_of(*slices: LabelledSlice) -> Mapping[int, StructureShape]:
    examples = TrainingSet(
        list(slices),
        [Label(5), Label(9)],
        "axial",
        IntensityNormalisation(kind="percentiles"),
        1 + max(each.volume for each in slices),
    )
    return {each.label: each for each in structure_shapes(examples)}


def test_areas_are_in_square_millimetres_and_labels_are_the_numbers_of_results() -> None:
    found = shapes_of(slice_of((2, 2, 4)), slice_of((2, 2, 6), number=1))
    assert list(found) == [5]
    assert found[5].slices == 2 and found[5].parts == 1
    assert found[5].usual_area == pytest.approx((16 + 36) / 2)
    assert found[5].smallest_part == pytest.approx(16)


def test_a_stray_pixel_is_no_part() -> None:
    assert shapes_of(slice_of((2, 2, 6), (20, 20, 1)))[5].parts == 1
    both = shapes_of(slice_of((2, 2, 6), (20, 20, 3)))[5]
    assert both.parts == 2 and both.smallest_part == pytest.approx(9)


def test_pieces_along_the_axis() -> None:
    below, above = slice_of((2, 2, 4)), slice_of((2, 2, 4), number=8)
    assert shapes_of(below, above)[5].parts == 1
    absent = slice_of(number=4)
    assert shapes_of(below, absent, above)[5].parts == 2
    unknown = slice_of(number=4, known=False)
    assert shapes_of(below, unknown, above)[5].parts == 1
    elsewhere = slice_of((25, 25, 4), number=2)
    assert shapes_of(below, elsewhere)[5].parts == 2
    assert shapes_of(below, slice_of((25, 25, 4), number=2, volume=1))[5].parts == 1


def test_a_large_data_set_is_measured_by_some_of_its_volumes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("SAMFineTuneLib.tasks.structure_shapes._MOST_SLICES", 4)
    many = [slice_of((4, 4, 6), number=each % 2, volume=each // 2) for each in range(20)]
    assert shapes_of(*many)[5].slices == 4
    assert shapes_of(*many[:4])[5].slices == 4
    one_volume = [slice_of((4, 4, 6), number=each) for each in range(9)]
    assert shapes_of(*one_volume)[5].slices == 9
