"""Which slices are held out of a fine-tune, so that it can be measured on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from SAMFineTuneLib.examples.training_set import LabelledSlice

# Share of the volumes, or of the labelled slices, that is held out, and at least one.
_SHARE = 0.15
# With more than these the DSC hardly becomes more certain, and measuring takes long.
_MOST = 200
# The DSC of fewer held-out labelled slices than this is too uncertain to choose weights by: the
# best of several measurements is then best by chance, and is often an early one.
_ENOUGH_TO_CHOOSE = 8


@dataclass(frozen=True)
class ValidationSplit:
    """Which slices are learnt from and which are held out, as positions in the list of slices.

    Attributes:
        training: slices to learn from.
        validation: held-out slices; empty where no slice can be held out.
        by: whether whole volumes or single slices are held out, or the slices of a list that the
            user gave for it, or nothing.
    """

    training: list[int]
    validation: list[int]
    by: Literal["volume", "slice", "validation list", "none"]

    @property
    def joins_at_the_end(self) -> bool:
        """Whether the held-out slices may be learnt from once the network is measured.

        What a user keeps apart in a list of its own is never learnt from.
        """
        return self.by != "validation list"

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
    no slice was learnt from. The frames of a volume resemble each other even more: a single slice
    is held out in all of them. Volumes without a structure are not held out, because a DSC cannot
    be measured on them. The only slices of a label are not held out either; where this leaves
    nothing to hold out, there is no validation.
    """
    order = np.random.default_rng([seed, 1]).permutation
    volumes = _groups_of_volumes(slices)
    if len(volumes) > 1:
        groups = [volumes[index] for index in order(len(volumes))]
        held_out = _spare(slices, groups, _wanted(len(volumes)))
        if held_out:
            return _without(slices, held_out, "volume")
    labelled = _groups_of_slices(slices)
    groups = [labelled[index] for index in order(len(labelled))]
    held_out = _spare(slices, groups, _wanted(len(labelled)))
    return _without(slices, held_out, "slice" if held_out else "none")


def _groups_of_volumes(slices: Sequence[LabelledSlice]) -> list[list[int]]:
    """The positions of all slices of each volume that shows a structure, volume by volume."""
    of_volume: dict[int, list[int]] = defaultdict(list)
    for position, each in enumerate(slices):
        of_volume[each.volume].append(position)
    volumes = sorted({each.volume for each in slices if each.is_labelled})
    return [of_volume[volume] for volume in volumes]


def _groups_of_slices(slices: Sequence[LabelledSlice]) -> list[list[int]]:
    """The positions of each slice that shows a structure; the frames of a slice belong together."""
    of_slice: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position, each in enumerate(slices):
        of_slice[each.volume, each.number].append(position)
    return [
        group
        for group in of_slice.values()
        if any(slices[position].is_labelled for position in group)
    ]


def by_list(learnt: int, held_out: Sequence[int]) -> ValidationSplit:
    """Holds out slices of a list that the user gave for it.

    Args:
        learnt: how many slices are learnt from; they come first.
        held_out: positions of the slices to measure on.
    """
    return ValidationSplit(list(range(learnt)), list(held_out), "validation list")


def _wanted(available: int) -> int:
    return min(max(1, round(_SHARE * available)), _MOST)


def _spare(slices: list[LabelledSlice], groups: list[list[int]], wanted: int) -> list[int]:
    """The first `wanted` groups without which every class still has a slice to learn from."""
    left = Counter(number for each in slices for number in each.classes)
    held_out: list[int] = []
    for group in groups:
        if not wanted:
            break
        taken = Counter(number for position in group for number in slices[position].classes)
        if taken and all(left[number] > count for number, count in taken.items()):
            left.subtract(taken)
            held_out += group
            wanted -= 1
    return sorted(held_out)


def _without(
    slices: list[LabelledSlice], held_out: list[int], by: Literal["volume", "slice", "none"]
) -> ValidationSplit:
    kept_apart = set(held_out)
    training = [position for position in range(len(slices)) if position not in kept_apart]
    return ValidationSplit(training, held_out, by)
