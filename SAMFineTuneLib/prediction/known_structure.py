"""A structure of a volume on the slices on which it is drawn or known to be absent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.slices.stack import SliceStack


class Drawing(NamedTuple):
    """One labelmap in which a structure was drawn.

    Attributes:
        labels: the labelmap on the volume's grid, cut along the axis along which it was drawn.
        known: (slices,) bool, where the labelmap is right about the structure; it may be absent.
    """

    labels: SliceStack
    known: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class KnownStructure:
    """One structure of a volume on the slices on which it is known.

    Attributes:
        label: its number.
        drawings: at least one; all are cut along the same axis.
    """

    label: int
    drawings: tuple[Drawing, ...]

    @property
    def axis(self) -> int:
        """The axis of the volume's array along which it was drawn slice by slice."""
        return self.drawings[0].labels.axis

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """(slices,) bool, where the structure is known."""
        return reduce(np.logical_or, (each.known for each in self.drawings))

    def mask(self, number: int) -> NDArray[np.bool_]:
        """The mask (rows, columns) of a known slice."""
        masks = [each.labels[number] == self.label for each in self.drawings if each.known[number]]
        return reduce(np.logical_or, masks)

    @property
    def masks(self) -> dict[int, NDArray[np.bool_]]:
        """The masks (rows, columns) of all known slices, by number."""
        return {each: self.mask(each) for each in np.flatnonzero(self.known).tolist()}

    @cached_property
    def drawn(self) -> list[int]:
        """Numbers of the known slices that show it, in order."""
        return [each for each in np.flatnonzero(self.known).tolist() if self.mask(each).any()]

    def between(self, number: int) -> tuple[int, int] | None:
        """The drawn slices on both sides of a slice.

        None where the slice itself is known, where the structure is not drawn on one of its
        sides, and where it is known to be absent between the slice and the next drawn one.
        """
        known = np.flatnonzero(self.known)
        before, after = known[known < number], known[known > number]
        if self.known[number] or not (len(before) and len(after)):
            return None
        first, last = int(before[-1]), int(after[0])
        return (first, last) if first in self.drawn and last in self.drawn else None

    @property
    def has_between(self) -> bool:
        """Whether there is a slice between two neighbouring drawn ones."""
        return any(self.between(number) for number in range(len(self.known)))
