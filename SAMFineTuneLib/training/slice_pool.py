"""The slices that batches are drawn from, and the probability of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from SAMFineTuneLib.examples.training_set import LabelledSlice

# Share of a batch that is drawn from the slices known to be empty.
_EMPTY_SHARE = 0.2


class SlicePool:
    """Slices to draw from, with their probabilities.

    Every class should be drawn equally often, even if it is labelled on a few slices only, or on
    slices on which all other classes are unknown. Therefore the probability of a labelled slice
    is proportional to the sum, over the classes that it shows, of one over the number of slices
    that show the class. The probability of an empty slice is proportional to the number of classes
    that are known on it.

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
        self._labelled_probabilities = _normalised(
            [sum(1 / shown[number] for number in slices[each].classes) for each in labelled]
        )
        self._empty_probabilities = _normalised([float(slices[each].known.sum()) for each in empty])

    def draw(self, size: int, random: np.random.Generator) -> list[int]:
        """Positions for a batch; no position occurs twice if there are enough slices."""
        from_empty = int((random.random(size) < _EMPTY_SHARE).sum()) if len(self._empty) else 0
        # At least one slice is labelled, because empty slices teach no shape.
        from_empty = min(from_empty, max(0, size - 1))
        return [
            *_drawn(self._labelled, self._labelled_probabilities, size - from_empty, random),
            *_drawn(self._empty, self._empty_probabilities, from_empty, random),
        ]


def _normalised(weights: list[float]) -> np.ndarray:
    probabilities = np.asarray(weights, dtype=float)
    return probabilities / probabilities.sum() if len(probabilities) else probabilities


def _drawn(
    positions: np.ndarray, probabilities: np.ndarray, count: int, random: np.random.Generator
) -> list[int]:
    if not count:
        return []
    chosen = random.choice(positions, count, replace=count > len(positions), p=probabilities)
    return [int(each) for each in chosen]
