"""What a user has drawn of a structure in a volume, and on which slices nothing of it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.slices.stack import SliceStack


@dataclass(frozen=True, eq=False)
class KnownStructure:
    """One structure of a volume on the slices that a user has said something of.

    Attributes:
        label: its number.
        labels: the labelmap in which it was drawn, on the volume's grid.
        known: (slices,) bool, where the labelmap tells the truth of it, be it that it is absent.
    """

    label: int
    labels: SliceStack
    known: NDArray[np.bool_]

    def joined_by(self, other: KnownStructure) -> KnownStructure:
        """What both say of the same structure of the same volume, cut alike."""
        array = np.zeros(self.labels.array.shape, self.labels.array.dtype)
        labels = SliceStack(array, self.labels.geometry, self.labels.axis)
        for structure in (self, other):
            for number in np.flatnonzero(structure.known).tolist():
                labels[number][structure.mask(number)] = self.label
        return KnownStructure(self.label, labels, self.known | other.known)

    def mask(self, number: int) -> NDArray[np.bool_]:
        """(rows, columns) of a slice."""
        drawn: NDArray[np.bool_] = self.labels[number] == self.label
        return drawn

    @cached_property
    def drawn(self) -> list[int]:
        """Numbers of the known slices that show it, in order."""
        return [each for each in np.flatnonzero(self.known).tolist() if self.mask(each).any()]

    def between(self, number: int) -> tuple[int, int] | None:
        """The drawn slices on both sides of a slice.

        None where the slice is known itself, where nothing was drawn on one of its sides, and
        where the structure is known to be absent before the next drawn slice comes.
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
