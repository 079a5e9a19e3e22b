"""Places that a user points at, on the slice and on the square that the network sees."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pytest
import torch

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.axes import AXIS_NAMES
from SAMFineTuneLib.interactive.protocol import Box, Point
from SAMFineTuneLib.interactive.refinement import SquareBox, SquarePoint
from SAMFineTuneLib.interactive.slice_frame import SliceFrame
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Volume
from Testing.support.synthetic_volumes import geometry_of

SHAPE = (7, 9, 11)
SPACING = (0.8, 1.3, 2.9)
VOXEL = (8, 2, 5)
SIZE = 64


def turned(angles: tuple[float, float, float]) -> np.ndarray:
    """Rotation about x, y and z, one after another."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        step = np.eye(3)
        one, other = (each for each in range(3) if each != axis)
        step[one, one] = step[other, other] = np.cos(angle)
        step[one, other], step[other, one] = -np.sin(angle), np.sin(angle)
        rotation = step @ rotation
    return rotation


def directions() -> Iterator[tuple[float, ...]]:
    """Every way in which a file may store its axes, and three oblique ones."""
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        matrix = np.zeros((3, 3))
        matrix[order, range(3)] = signs
        yield tuple(matrix.ravel())
    for angles in ((0.3, -0.2, 0.5), (2.5, 0.4, -1.0), (0.7, 0.7, 0.7)):
        yield tuple(turned(angles).ravel())


def stack_with(direction: tuple[float, ...], axis: str) -> SliceStack:
    """The slices of a volume in which one voxel is marked."""
    array = np.zeros(SHAPE, np.float32)
    array[VOXEL[::-1]] = 1
    geometry = geometry_of(SHAPE, SPACING, (5.0, -7.0, 11.0), direction)
    return SliceStack.of(Volume(array, geometry), axis)


def fit_of(stack: SliceStack) -> SquareFit:
    rows, columns = stack[0].shape
    return SquareFit(rows, columns, stack.pixel_spacing, SIZE)


@pytest.fixture
def stack() -> SliceStack:
    return stack_with((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), "axial")


@pytest.fixture
def frame(stack: SliceStack) -> SliceFrame:
    return SliceFrame(stack, fit_of(stack))


@pytest.mark.parametrize("axis", AXIS_NAMES)
def test_a_click_on_a_voxel_falls_on_its_pixel_and_on_its_place_on_the_square(axis: str) -> None:
    seen = set()
    for direction in directions():
        stack = stack_with(direction, axis)
        number, row, column = stack.place(VOXEL)
        assert (number, row, column) == (int(number), int(row), int(column))
        assert stack[int(number)][int(row), int(column)] == 1
        fit = fit_of(stack)
        point = SliceFrame(stack, fit).on_square(Point(at=VOXEL), int(number))
        assert isinstance(point, SquarePoint)
        square = fit.mask_to_square(torch.from_numpy(stack[int(number)].copy()).int())
        assert square[int(point.y), int(point.x)] == 1
        seen.add((row, column))
    # Else every direction would have been the same one.
    assert len(seen) > 4


@pytest.mark.parametrize("axis", AXIS_NAMES)
def test_a_box_around_a_voxel_holds_it_alone(axis: str) -> None:
    for direction in directions():
        stack = stack_with(direction, axis)
        number = int(stack.place(VOXEL)[0])
        fit = fit_of(stack)
        across = [each != 2 - stack.axis for each in range(3)]
        low, high = (
            tuple(at + side * half for at, half in zip(VOXEL, across, strict=True))
            for side in (-0.5, 0.5)
        )
        # Corners in any order.
        for corners in ((low, high), (high, low)):
            box = SliceFrame(stack, fit).on_square(Box(corners=corners), number)  # type: ignore[arg-type]
            assert isinstance(box, SquareBox)
            square = fit.mask_to_square(torch.from_numpy(stack[number].copy()).int())
            y, x = np.nonzero(square.numpy())
            assert box.left <= x.min() + 0.5 and x.max() + 0.5 <= box.right
            assert box.top <= y.min() + 0.5 and y.max() + 0.5 <= box.bottom
            assert box.right - box.left == pytest.approx(fit.columns_on_square / fit.columns)
            assert box.bottom - box.top == pytest.approx(fit.rows_on_square / fit.rows)


def refusal(frame: SliceFrame, prompt: Point | Box, number: int = 5) -> str:
    with pytest.raises(InputError) as caught:
        frame.on_square(prompt, number)
    assert caught.value.remedy
    return caught.value.code


@pytest.mark.parametrize(
    ("i", "j"), [(-0.51, 2.0), (10.5, 2.0), (8.0, -0.6), (8.0, 8.51), (1e30, 2.0)]
)
def test_a_click_beside_the_image_is_refused(frame: SliceFrame, i: float, j: float) -> None:
    assert refusal(frame, Point(at=(i, j, 5.0))) == "outside"


@pytest.mark.parametrize(("i", "j"), [(-0.5, 2.0), (10.49, 2.0), (8.0, -0.5), (8.0, 8.49)])
def test_the_outermost_pixels_belong_to_the_image(frame: SliceFrame, i: float, j: float) -> None:
    point = frame.on_square(Point(at=(i, j, 5.0)), 5)
    assert isinstance(point, SquarePoint)
    assert 0 <= point.x <= SIZE and 0 <= point.y <= SIZE


def test_prompts_for_another_slice_are_refused(frame: SliceFrame) -> None:
    assert refusal(frame, Point(at=(8.0, 2.0, 5.6))) == "other_slice"
    assert refusal(frame, Point(at=(8.0, 2.0, 5.0)), number=4) == "other_slice"
    # Drawn in a view of another orientation: its corners lie on many axial slices.
    assert refusal(frame, Box(corners=((1.0, 2.0, 0.0), (8.0, 2.0, 6.0)))) == "other_slice"
    assert isinstance(frame.on_square(Point(at=(8.0, 2.0, 5.5)), 5), SquarePoint)


@pytest.mark.parametrize(
    "corners",
    [
        ((3.0, 3.0, 5.0), (3.0, 3.0, 5.0)),
        ((3.0, 1.0, 5.0), (3.0, 7.0, 5.0)),
        ((3.0, 4.0, 5.0), (9.0, 4.9, 5.0)),
        # Beside the image altogether.
        ((20.0, 1.0, 5.0), (30.0, 7.0, 5.0)),
    ],
)
def test_a_box_that_holds_no_pixel_is_refused(frame: SliceFrame, corners: tuple) -> None:  # type: ignore[type-arg]
    assert refusal(frame, Box(corners=corners)) == "empty_box"


def test_a_box_may_be_drawn_over_the_edge(frame: SliceFrame, stack: SliceStack) -> None:
    fit = fit_of(stack)
    box = frame.on_square(Box(corners=((-40.0, 3.5, 5.0), (90.0, 40.0, 5.0))), 5)
    assert isinstance(box, SquareBox)
    assert (box.left, box.right) == (0, fit.columns_on_square)
    assert box.top == pytest.approx(4 / 9 * fit.rows_on_square)
    assert box.bottom == fit.rows_on_square


@pytest.mark.parametrize("place", range(3))
def test_a_place_that_is_no_number_is_refused(frame: SliceFrame, place: int) -> None:
    at = [8.0, 2.0, 5.0]
    at[place] = float("nan")
    nowhere, there = (at[0], at[1], at[2]), (1.0, 1.0, 5.0)
    assert refusal(frame, Point(at=nowhere)) == "outside"
    assert refusal(frame, Box(corners=(nowhere, there))) == "outside"
