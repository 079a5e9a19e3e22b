"""Converts prompts from voxel indices of the volume to pixels of the model's square."""

from __future__ import annotations

import math

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.interactive.protocol import Box, Place, Point, Prompt
from SAMFineTuneLib.interactive.refinement import SquareBox, SquarePoint, SquarePrompt
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack

# A box must hold at least one pixel; in voxels of the slice.
_SMALLEST_BOX = 1.0


class SliceFrame:
    """Converts prompts on slices of one volume to the square, and checks them.

    Args:
        stack: the volume's slices.
        fit: how these slices lie on the square.
    """

    def __init__(self, stack: SliceStack, fit: SquareFit) -> None:
        self._stack = stack
        self._fit = fit

    def on_square(self, prompt: Prompt, number: int) -> SquarePrompt:
        """A prompt for the slice of this number, in pixels of the square.

        Raises:
            InputError: it lies on another slice or outside the volume, or is a box without area.
        """
        if isinstance(prompt, Point):
            row, column = self._inside(prompt.at, number)
            return SquarePoint(*self._xy(row, column), prompt.positive)
        return self._box(prompt, number)

    def _box(self, box: Box, number: int) -> SquareBox:
        (top, left), (bottom, right) = (
            self._within(*self._row_and_column(corner, number)) for corner in box.corners
        )
        top, bottom = sorted((top, bottom))
        left, right = sorted((left, right))
        if bottom - top < _SMALLEST_BOX or right - left < _SMALLEST_BOX:
            raise InputError(
                "the box holds no pixel of the slice",
                "draw it around the structure, from one corner to the opposite one",
                code="empty_box",
            )
        return SquareBox(*self._xy(top, left), *self._xy(bottom, right))

    def _inside(self, place: Place, number: int) -> tuple[float, float]:
        row, column = self._row_and_column(place, number)
        fit = self._fit
        if not (-0.5 <= row < fit.rows - 0.5 and -0.5 <= column < fit.columns - 0.5):
            raise InputError(
                "the point lies outside the volume", "click into the image", code="outside"
            )
        return row, column

    def _row_and_column(self, place: Place, number: int) -> tuple[float, float]:
        if not all(map(math.isfinite, place)):
            raise InputError(
                f"the prompt lies nowhere: {place}", "click into the image", code="outside"
            )
        at, row, column = self._stack.place(place)
        if abs(at - number) > 0.5 + 1e-3:
            raise InputError(
                f"the prompt lies on {self._stack.name} slice {at:.1f}, not on slice {number}",
                f"give prompts on the {self._stack.name} slice that they are for",
                code="other_slice",
            )
        return row, column

    def _within(self, row: float, column: float) -> tuple[float, float]:
        """The place, moved to the image's edge if it lies beyond: a box may be drawn across it."""
        return (
            min(max(row, -0.5), self._fit.rows - 0.5),
            min(max(column, -0.5), self._fit.columns - 0.5),
        )

    def _xy(self, row: float, column: float) -> tuple[float, float]:
        fit = self._fit
        return (
            (column + 0.5) * fit.columns_on_square / fit.columns,
            (row + 0.5) * fit.rows_on_square / fit.rows,
        )
