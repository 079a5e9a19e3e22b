"""How well a structure is interpolated between its drawn slices, as these tell."""

from __future__ import annotations

import numpy as np
import pytest

from SAMFineTuneLib.prediction.interpolation_error import relative_error
from SAMFineTuneLib.prediction.known_structure import Drawing, KnownStructure
from SAMFineTuneLib.slices.stack import SliceStack
from Testing.support.synthetic_volumes import geometry_of

SIDE = 64


def drawn(radii: dict[int, float], slices: int = 9, absent: int | None = None) -> KnownStructure:
    """Discs of these radii on these slices."""
    y, x = np.mgrid[:SIDE, :SIDE]
    array = np.zeros((slices, SIDE, SIDE), np.uint8)
    for number, radius in radii.items():
        array[number] = np.hypot(y - 32, x - 32) < radius
    known = np.isin(np.arange(slices), [*radii, *([] if absent is None else [absent])])
    return KnownStructure(1, (Drawing(SliceStack(array, geometry_of(array.shape), 0), known),))


def error(structure: KnownStructure, slice_spacing: float = 1.0) -> float:
    return relative_error(structure.masks, (1.0, 1.0), slice_spacing)


def test_a_structure_that_does_not_change_is_interpolated_best() -> None:
    assert error(drawn({0: 10, 4: 10, 8: 10})) == pytest.approx(1 / 3)


def test_the_error_is_in_mm_for_each_mm_to_the_nearer_drawn_slice() -> None:
    # From 10 to 10 mm the shape is 10 mm, and the true radius 16: 6 mm in 4 mm, where 0.3 is usual.
    bulging = drawn({0: 10, 4: 16, 8: 10})
    assert error(bulging) == pytest.approx(6 / 4 / 0.3, rel=0.2)
    assert error(bulging, slice_spacing=3.0) == pytest.approx(6 / 12 / 0.3, rel=0.2)


def test_it_stays_within_bounds() -> None:
    assert error(drawn({0: 4, 4: 28, 8: 4}), slice_spacing=0.1) == 8.0


def test_two_drawn_slices_tell_nothing() -> None:
    assert error(drawn({0: 10, 8: 20})) == 1.0
    # It is known to be gone on slice 6: nothing leads over slice 4 to slice 8.
    assert error(drawn({0: 10, 4: 16, 8: 10}, absent=6)) == 1.0
