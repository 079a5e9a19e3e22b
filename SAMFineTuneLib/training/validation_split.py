"""Which labelled slices a fine-tune does not learn from, so that it can be measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from SAMFineTuneLib.training.training_set import LabelledSlice

# Held out of the volumes or of the labelled slices, and never fewer than one.
_SHARE = 0.15
# The DSC of fewer held-out labelled slices than this is too uncertain to choose weights by: what
# looks best among several measurements is luck, often early.
_ENOUGH_TO_CHOOSE = 8


@dataclass(frozen=True)
class ValidationSplit:
    """Positions in the list of slices.

    Attributes:
        training: slices to learn from.
        validation: slices held out; empty when nothing can be spared.
        by: whether whole volumes or single slices were held out, or nothing.
    """

    training: list[int]
    validation: list[int]
    by: Literal["volume", "slice", "none"]

    def can_choose(self, slices: Sequence[LabelledSlice]) -> bool:
        """Whether enough labelled ones of these are held out to choose weights by."""
        return len(self.labelled_held_out(slices)) >= _ENOUGH_TO_CHOOSE

    def labelled_held_out(self, slices: Sequence[LabelledSlice]) -> list[LabelledSlice]:
        """Those of these that are held out and show something."""
        held_out = [slices[position] for position in self.validation]
        return [each for each in held_out if each.is_labelled]


def split(slices: list[LabelledSlice], seed: int) -> ValidationSplit:
    """Holds out whole volumes where there are several, else slices, never fewer than one.

    A volume's slices resemble each other, so a model is honestly measured only on volumes it has
    seen nothing of. A volume in which nothing is to be found is no measure, and is learnt from.
    Nothing is held out that is the only example of a label; when that spares nothing, there is no
    validation.
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
    """The first `wanted` groups that can go while every class keeps a slice to learn from."""
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
