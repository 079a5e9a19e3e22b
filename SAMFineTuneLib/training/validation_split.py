"""Which slices are held out of a fine-tune, so that it can be measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from SAMFineTuneLib.examples.training_set import LabelledSlice

# Share of the volumes, or of the labelled slices, that is held out, and at least one.
_SHARE = 0.15
# The DSC of fewer held-out labelled slices than this is too uncertain to choose weights by: the
# best of several measurements is then best by chance, and is often an early one.
_ENOUGH_TO_CHOOSE = 8


@dataclass(frozen=True)
class ValidationSplit:
    """Which slices are learnt from and which are held out, as positions in the list of slices.

    Attributes:
        training: slices to learn from.
        validation: held-out slices; empty where no slice can be held out.
        by: whether whole volumes or single slices are held out, or nothing.
    """

    training: list[int]
    validation: list[int]
    by: Literal["volume", "slice", "none"]

    def can_choose(self, slices: Sequence[LabelledSlice]) -> bool:
        """Whether enough labelled slices are held out to choose weights by."""
        return len(self.labelled_held_out(slices)) >= _ENOUGH_TO_CHOOSE

    def labelled_held_out(self, slices: Sequence[LabelledSlice]) -> list[LabelledSlice]:
        """The held-out slices that show a structure."""
        held_out = [slices[position] for position in self.validation]
        return [each for each in held_out if each.is_labelled]


def split(slices: list[LabelledSlice], seed: int) -> ValidationSplit:
    """Holds out whole volumes where several are labelled, otherwise single slices.

    Slices of a volume resemble each other, so that a measurement is honest only on volumes of which
    no slice was learnt from. Volumes without a structure are not held out, because a DSC cannot be
    measured on them. The only slices of a label are not held out either; where this leaves nothing
    to hold out, there is no validation.
    """
    order = np.random.default_rng([seed, 1]).permutation
    volumes = sorted({each.volume for each in slices if each.is_labelled})
    if len(volumes) > 1:
        groups = [
            [position for position, each in enumerate(slices) if each.volume == volumes[index]]
            for index in order(len(volumes))
        ]
        held_out = _spare(slices, groups, max(1, round(_SHARE * len(volumes))))
        if held_out:
            return _without(slices, held_out, "volume")
    labelled = [position for position, each in enumerate(slices) if each.is_labelled]
    groups = [[labelled[index]] for index in order(len(labelled))]
    held_out = _spare(slices, groups, max(1, round(_SHARE * len(labelled))))
    return _without(slices, held_out, "slice" if held_out else "none")


def _spare(slices: list[LabelledSlice], groups: list[list[int]], wanted: int) -> list[int]:
    """The first `wanted` groups without which every class still has a slice to learn from."""
    remaining = set(range(len(slices)))
    every_class = set().union(*(each.classes for each in slices))
    held_out: list[int] = []
    for group in groups:
        if not wanted:
            break
        left = remaining - set(group)
        still_shown = set().union(*(slices[position].classes for position in left))
        if still_shown == every_class and any(slices[each].is_labelled for each in group):
            remaining = left
            held_out += group
            wanted -= 1
    return sorted(held_out)


def _without(
    slices: list[LabelledSlice], held_out: list[int], by: Literal["volume", "slice", "none"]
) -> ValidationSplit:
    training = [position for position in range(len(slices)) if position not in held_out]
    return ValidationSplit(training, held_out, by)
