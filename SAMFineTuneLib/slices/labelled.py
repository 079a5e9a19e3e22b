"""What is known of which label on which slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.slices.stack import SliceStack

LabelledSlices = Literal["nonempty"] | list[int]
EmptySlices = Literal["auto", "outside", "none"] | list[int]


def known_labels(
    stack: SliceStack,
    labels: list[int],
    labelled: LabelledSlices,
    empty: EmptySlices,
    complete: Sequence[int] = (),
    unfinished: Sequence[int] = (),
    known_empty: Sequence[int] = (),
    extent: tuple[int, int] | None = None,
) -> np.ndarray:
    """For each slice and label, whether the labelmap tells the truth there.

    A clinician who labels the liver on five slices and the spleen on five others has not said
    that there is no spleen on the liver's slices. So each label is known on slices of its own:

    * `labelled="nonempty"`: where the label has voxels. A list: all labels on these slices.
    * `empty="outside"`: a label is also known, to be absent, on all slices beyond its first and
      last labelled one. "auto" leaves a margin there, as wide as the largest gap between two
      labelled slices, because the structure may end between them; one labelled slice alone tells
      nothing. A list: all labels are absent on these slices. "none": nothing is assumed.
      In a labelmap without a single labelled voxel all slices lie "outside".
    * `complete`: all labels are known on these slices too.
    * `unfinished`: nothing is known on these slices, whatever the labelmap holds there; but a
      label that is begun there is not taken to end before.
    * `known_empty`: all labels are absent on these slices too.
    * `extent`: all labels are absent before its first and after its last slice. The words of
      `empty` say nothing then.

    Args:
        stack: the labelmap as slices.
        labels: the labels to learn.
        labelled: which slices are labelled.
        empty: which slices are known to hold none of the labels.
        complete: slices on which every label is complete.
        unfinished: slices whose labels do not count; in none of the other lists.
        known_empty: slices that hold none of the labels.
        extent: the first and the last slice that hold any of the labels.

    Returns:
        bool, (slices, labels).

    Raises:
        InputError: a slice number out of range, or a slice called empty, or outside the extent,
            that holds a label and is not unfinished.
    """
    present = _present(stack, labels)
    for numbers in (complete, unfinished, known_empty, extent or ()):
        _refuse_out_of_range(numbers, len(stack))
    listed_empty = list(known_empty)
    if not isinstance(empty, str):
        _refuse_out_of_range(empty, len(stack))
        listed_empty += empty
    _refuse_labelled(listed_empty, present, labels)

    counts = np.ones(len(stack), dtype=bool)
    counts[list(unfinished)] = False
    known = present.copy()
    if not isinstance(labelled, str):
        _refuse_out_of_range(labelled, len(stack))
        known[:] = False
        known[labelled] = True
    known[list(complete)] = True
    known[~counts] = False
    if extent is not None:
        beyond = _beyond(extent, len(stack)) & counts
        _refuse_outside(extent, beyond, present, labels)
        known[beyond] = True
    elif empty == "outside" and not stack.array.any():
        known[counts] = True
    elif isinstance(empty, str) and empty != "none":
        for column in range(len(labels)):
            shown = known[:, column] & present[:, column]
            if np.count_nonzero(shown) < (2 if empty == "auto" else 1):
                continue
            # Unfinished paint does not count, but the structure is there: it ends beyond.
            seen = np.flatnonzero(shown | (present[:, column] & ~counts))
            outside = _outside(seen, len(stack), with_margin=empty == "auto")
            # A slice that was left out of the list may hold the label, half painted.
            known[:, column] |= outside & ~present[:, column] & counts
    known[listed_empty] = True
    return known


def tells_of_slices(extent: tuple[int, int] | None, *listed: str | Sequence[int]) -> bool:
    """Whether anything was said of slices by their numbers; words such as "auto" name none."""
    return extent is not None or any(not isinstance(each, str) and each for each in listed)


def _present(stack: SliceStack, labels: list[int]) -> np.ndarray:
    others = tuple(axis for axis in range(3) if axis != stack.axis)
    return np.stack([(stack.array == label).any(axis=others) for label in labels], axis=1)


def _outside(seen: np.ndarray, slices: int, with_margin: bool) -> np.ndarray:
    outside = np.zeros(slices, dtype=bool)
    margin = int(np.diff(seen).max()) - 1 if with_margin else 0
    outside[: max(0, seen[0] - margin)] = True
    outside[seen[-1] + margin + 1 :] = True
    return outside


def _beyond(extent: tuple[int, int], slices: int) -> np.ndarray:
    numbers = np.arange(slices)
    return (numbers < extent[0]) | (numbers > extent[1])


def _refuse_out_of_range(numbers: Sequence[int], slices: int) -> None:
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
                "do not call it empty, or clear the label there",
                code="not_empty",
            )


def _refuse_outside(
    extent: tuple[int, int], beyond: np.ndarray, present: np.ndarray, labels: list[int]
) -> None:
    wrong = np.flatnonzero(beyond & present.any(axis=1))
    if len(wrong):
        label = labels[int(np.flatnonzero(present[wrong[0]])[0])]
        raise InputError(
            f"slice {wrong[0]} holds label {label} but lies outside the extent, slices {extent[0]} "
            f"to {extent[1]}",
            "widen the extent, clear the label there, or call the slice unfinished",
            code="outside_extent",
        )
