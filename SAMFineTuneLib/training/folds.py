"""The folds of a cross-validation: which labelled slices are left out of which fine-tune."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.training.validation_split import groups_of_slices, groups_of_volumes


@dataclass(frozen=True)
class Fold:
    """One fine-tune of a cross-validation, as positions in the list of slices.

    Attributes:
        training: slices to learn from.
        left_out: the groups that are measured: all slices of a volume, or one slice.
    """

    training: list[int]
    left_out: list[list[int]]


@dataclass(frozen=True)
class Folds:
    """All fine-tunes of a cross-validation.

    Attributes:
        by: whether whole volumes or single slices are left out.
        folds: none where every group is the only one of some structure.
        groups: how many groups there are; those without which a structure has no slice left to
            learn from are never left out.
    """

    by: Literal["volume", "slice"]
    folds: list[Fold]
    groups: int

    @property
    def measured(self) -> int:
        """How many groups are left out of some fine-tune."""
        return sum(len(each.left_out) for each in self.folds)


def leave_out(slices: Sequence[LabelledSlice], seed: int, most: int) -> Folds:
    """Leaves every volume out of one fine-tune, or every slice where one volume is labelled.

    Args:
        slices: all slices.
        seed: of the order.
        most: fine-tunes; with more groups, several are left out of the same one.
    """
    by: Literal["volume", "slice"] = "volume"
    groups = groups_of_volumes(slices)
    if len(groups) < 2:
        by, groups = "slice", groups_of_slices(slices)
    order = np.random.default_rng([seed, 6]).permutation(len(groups))
    count = min(most, len(groups))
    shares = [[groups[number] for number in order[start::count]] for start in range(count)]
    folds = [_fold(slices, share) for share in shares]
    return Folds(by, [each for each in folds if each.left_out], len(groups))


def _fold(slices: Sequence[LabelledSlice], groups: Sequence[list[int]]) -> Fold:
    """Leaves the groups out without which every structure still has a slice to learn from."""
    left = Counter(number for each in slices for number in each.classes)
    left_out: list[list[int]] = []
    for group in groups:
        taken = Counter(number for position in group for number in slices[position].classes)
        if all(left[number] > count for number, count in taken.items()):
            left.subtract(taken)
            left_out.append(group)
    apart = {position for group in left_out for position in group}
    training = [position for position in range(len(slices)) if position not in apart]
    return Fold(training, left_out)
