"""Which regions of a segmentation are dropped, and what the examples must show for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from SAMFineTuneLib.models.structure_shape import StructureShape
from SAMFineTuneLib.prediction.known_structure import Drawing, KnownStructure
from SAMFineTuneLib.prediction.stray_regions import drop_stray_regions
from SAMFineTuneLib.slices.stack import SliceStack
from Testing.support.synthetic_volumes import geometry_of

SHAPE = (20, 40, 40)
IN_ONE_PIECE = StructureShape(label=1, slices=5, parts=1, smallest_part=80, usual_area=100)
IN_TWO_PIECES = StructureShape(label=1, slices=5, parts=2, smallest_part=40, usual_area=100)

Box = tuple[slice, slice, slice]
# A structure of ten slices with sections of 100 mm².
LARGEST: Box = (slice(4, 14), slice(5, 15), slice(5, 15))


def stack_of(*boxes: Box, thickness: float = 1.0) -> SliceStack:
    """Label 1 in boxes, cut along the first axis of the array."""
    array = np.zeros(SHAPE, np.uint8)
    for box in boxes:
        array[box] = 1
    return SliceStack(array, geometry_of(SHAPE, (1.0, 1.0, thickness)), 0)


def left(stack: SliceStack, *boxes: Box) -> list[bool]:
    """Of each box, whether it is still there as it was."""
    return [bool((stack.array[box] == 1).all()) for box in boxes]


BESIDE: Box = (slice(6, 10), slice(25, 30), slice(25, 30))
BEYOND: Box = (slice(17, 20), slice(25, 31), slice(32, 38))


def test_a_small_region_apart_from_a_structure_in_one_piece_is_dropped() -> None:
    stack = stack_of(LARGEST, BESIDE, BEYOND)
    assert drop_stray_regions(stack, [IN_ONE_PIECE]) == 2
    assert np.array_equal(stack.array, stack_of(LARGEST).array)


def test_two_kidneys_stay_even_if_the_examples_show_one_at_a_time() -> None:
    other: Box = (slice(7, 15), slice(25, 35), slice(25, 34))
    stack = stack_of(LARGEST, other)
    assert drop_stray_regions(stack, [IN_ONE_PIECE]) == 0
    assert left(stack, LARGEST, other) == [True, True]


def test_of_a_structure_in_several_pieces_only_less_than_a_piece_is_dropped() -> None:
    speck: Box = (slice(6, 10), slice(25, 29), slice(25, 29))
    stack = stack_of(LARGEST, speck, BEYOND)
    assert drop_stray_regions(stack, [IN_TWO_PIECES]) == 1
    assert left(stack, LARGEST, BEYOND, speck) == [True, True, False]


@pytest.mark.parametrize(
    "shapes",
    [[], [IN_ONE_PIECE.model_copy(update={"slices": 1})]],
    ids=["an older model", "one labelled slice"],
)
def test_what_the_examples_do_not_tell_changes_nothing(shapes: list[StructureShape]) -> None:
    stack = stack_of(LARGEST, BESIDE)
    assert drop_stray_regions(stack, shapes) == 0
    assert left(stack, LARGEST, BESIDE) == [True, True]


def test_a_structure_that_was_hardly_found_is_left_as_it_is() -> None:
    """Its largest region has a quarter of the usual section, so it may be the wrong one."""
    crumb: Box = (slice(4, 9), slice(5, 10), slice(5, 10))
    stack = stack_of(crumb, (slice(12, 14), slice(25, 28), slice(25, 28)))
    assert drop_stray_regions(stack, [IN_ONE_PIECE]) == 0


@pytest.mark.parametrize(
    ("first", "aside", "thickness", "stays"),
    [(16, 0, 1.0, True), (18, 0, 1.0, False), (16, 20, 1.0, False), (15, 0, 5.0, True)],
    ids=["behind a short gap", "behind a long gap", "far aside", "behind a thick slice"],
)
def test_a_piece_in_line_with_an_end_stays(
    first: int, aside: int, thickness: float, stays: bool
) -> None:
    """A model that misses a vessel on a slice must not cost the rest of the vessel."""
    across = slice(7 + aside, 12 + aside)
    piece: Box = (slice(first, 20), across, slice(7, 12))
    stack = stack_of(LARGEST, piece, thickness=thickness)
    drop_stray_regions(stack, [IN_ONE_PIECE])
    assert left(stack, LARGEST, piece) == [True, stays]


def test_a_shorter_scan_loses_nothing() -> None:
    """Its place in the volume does not count: here it is cut off at the first slice."""
    cut: Box = (slice(0, 4), slice(25, 35), slice(25, 35))
    stack = stack_of(cut)
    assert drop_stray_regions(stack, [IN_ONE_PIECE]) == 0
    assert left(stack, cut) == [True]


def test_a_stray_region_within_another_structure_becomes_part_of_it() -> None:
    stack = stack_of(LARGEST, BESIDE)
    wider = tuple(slice(each.start - 2, each.stop + 2) for each in BESIDE)
    around = stack.array[wider]
    around[around == 0] = 7
    assert drop_stray_regions(stack, [IN_ONE_PIECE]) == 1
    assert (stack.array[wider] == 7).all()


@pytest.mark.parametrize("axis", [0, 2], ids=["along the slices", "across them"])
def test_a_region_that_the_user_has_drawn_stays(axis: int) -> None:
    stack = stack_of(LARGEST, BESIDE, BEYOND)
    drawn = np.zeros(SHAPE, np.uint8)
    number = BESIDE[axis].start
    at = (number, slice(None), slice(None)) if axis == 0 else (slice(None), slice(None), number)
    drawn[at] = stack.array[at]
    known: NDArray[np.bool_] = np.arange(SHAPE[axis]) == number
    cut = SliceStack(drawn, stack.geometry, axis)
    structure = KnownStructure(1, (Drawing(cut, known),))
    assert drop_stray_regions(stack, [IN_ONE_PIECE], [structure]) == 1
    assert left(stack, LARGEST, BESIDE, BEYOND) == [True, True, False]


def test_the_axis_of_the_slices_may_be_any_of_the_array() -> None:
    along = stack_of(LARGEST, BESIDE, (slice(16, 20), slice(7, 12), slice(7, 12)))
    turned = np.ascontiguousarray(np.moveaxis(along.array, 0, 2))
    other = replace(
        along, array=turned, geometry=geometry_of(turned.shape, (1.0, 1.0, 1.0)), axis=2
    )
    assert drop_stray_regions(along, [IN_ONE_PIECE]) == 1
    assert drop_stray_regions(other, [IN_ONE_PIECE]) == 1
    assert np.array_equal(np.moveaxis(other.array, 2, 0), along.array)


def test_thousands_of_specks_take_no_time() -> None:
    stack = stack_of(LARGEST)
    stack.array[:, 18:, 18:][::2, ::2, ::2] = 1
    assert drop_stray_regions(stack, [IN_ONE_PIECE]) == 10 * 11 * 11
    assert np.array_equal(stack.array, stack_of(LARGEST).array)
