"""From which slices a batch is drawn, and how often each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from SAMFineTuneLib.training.training_set import LabelledSlice

# Share of a batch drawn from the slices known to be empty.
_EMPTY_SHARE = 0.2


class SlicePool:
    """Slices to draw from, with their chances.

    Every class is to be seen equally often, so that one labelled on few slices, or on slices of
    its own on which all else is unknown, does not fall behind: a slice's chance is the sum, over
    the classes that it shows, of one over the number of slices that show the class. Of the empty
    slices those of which more is known are drawn more often.

    Args:
        slices: all slices.
        positions: those among them to draw from; at least one is labelled.
    """

    def __init__(self, slices: Sequence[LabelledSlice], positions: Sequence[int]) -> None:
        labelled = [each for each in positions if slices[each].is_labelled]
        empty = [each for each in positions if not slices[each].is_labelled]
        shown = Counter(number for each in labelled for number in slices[each].classes)
        self._labelled = np.array(labelled)
        self._empty = np.array(empty)
        self._labelled_chances = _normalised(
            [sum(1 / shown[number] for number in slices[each].classes) for each in labelled]
        )
        self._empty_chances = _normalised([float(slices[each].known.sum()) for each in empty])

    def draw(self, size: int, random: np.random.Generator) -> list[int]:
        """Positions for a batch; none twice as long as there are enough."""
        from_empty = int((random.random(size) < _EMPTY_SHARE).sum()) if len(self._empty) else 0
        # One labelled slice at least: a batch of empty slices teaches no shape.
        from_empty = min(from_empty, max(0, size - 1))
        return [
            *_drawn(self._labelled, self._labelled_chances, size - from_empty, random),
            *_drawn(self._empty, self._empty_chances, from_empty, random),
        ]


def _normalised(weights: list[float]) -> np.ndarray:
    chances = np.asarray(weights, dtype=float)
    return chances / chances.sum() if len(chances) else chances


def _drawn(
    positions: np.ndarray, chances: np.ndarray, count: int, random: np.random.Generator
) -> list[int]:
    if not count:
        return []
    chosen = random.choice(positions, count, replace=count > len(positions), p=chances)
    return [int(each) for each in chosen]
