"""What is known of which label on which slice."""

from __future__ import annotations

from typing import Literal

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.slices.stack import SliceStack

LabelledSlices = Literal["nonempty"] | list[int]
EmptySlices = Literal["auto", "outside", "none"] | list[int]


def known_labels(
    stack: SliceStack, labels: list[int], labelled: LabelledSlices, empty: EmptySlices
) -> np.ndarray:
    """For each slice and label, whether the labelmap tells the truth there.

    A clinician who labels the liver on five slices and the spleen on five others has not said
    that there is no spleen on the liver's slices. So each label is known on slices of its own:

    * `labelled="nonempty"`: where the label has voxels. A list: all labels on these slices.
    * `empty="outside"`: a label is also known, to be absent, on all slices beyond its first and
      last labelled one. "auto" leaves a margin there, as wide as the largest gap between two
      labelled slices, because the structure may end between them; one labelled slice alone tells
      nothing. A list: all labels are absent on these slices. "none": nothing is assumed.

    Args:
        stack: the labelmap as slices.
        labels: the labels to learn.
        labelled: which slices are labelled.
        empty: which slices are known to hold none of the labels.

    Returns:
        bool, (slices, labels).

    Raises:
        InputError: a slice number out of range, or a slice called empty that holds a label.
    """
    present = _present(stack, labels)
    known = present.copy()
    if not isinstance(labelled, str):
        _refuse_out_of_range(labelled, len(stack))
        known[:] = False
        known[labelled] = True
    if not isinstance(empty, str):
        _refuse_out_of_range(empty, len(stack))
        _refuse_labelled(empty, present, labels)
        known[empty] = True
    elif empty != "none":
        for column in range(len(labels)):
            shown = np.flatnonzero(known[:, column] & present[:, column])
            outside = _outside(shown, len(stack), with_margin=empty == "auto")
            # A slice that was left out of the list may hold the label, half painted.
            known[:, column] |= outside & ~present[:, column]
    return known


def _present(stack: SliceStack, labels: list[int]) -> np.ndarray:
    others = tuple(axis for axis in range(3) if axis != stack.axis)
    return np.stack([(stack.array == label).any(axis=others) for label in labels], axis=1)


def _outside(shown: np.ndarray, slices: int, with_margin: bool) -> np.ndarray:
    outside = np.zeros(slices, dtype=bool)
    if not len(shown) or (with_margin and len(shown) == 1):
        return outside
    margin = int(np.diff(shown).max()) - 1 if with_margin else 0
    outside[: max(0, shown[0] - margin)] = True
    outside[shown[-1] + margin + 1 :] = True
    return outside


def _refuse_out_of_range(numbers: list[int], slices: int) -> None:
    for number in numbers:
        if not 0 <= number < slices:
            raise InputError(
                f"there is no slice {number}: the volume has slices 0 to {slices - 1} on this axis",
                "count slices from 0, in the order in which they lie in the file",
                code="slice_out_of_range",
            )


def _refuse_labelled(empty: list[int], present: np.ndarray, labels: list[int]) -> None:
    for number in empty:
        if present[number].any():
            label = labels[int(np.flatnonzero(present[number])[0])]
            raise InputError(
                f"slice {number} was called empty but holds label {label}",
                "take it out of --empty, or clear the label there",
                code="not_empty",
            )
