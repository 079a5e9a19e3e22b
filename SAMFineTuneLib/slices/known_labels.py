"""Which labels are known on which slices of a labelmap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.slices.slice_knowledge import SliceKnowledge
from SAMFineTuneLib.slices.stack import SliceStack


def known_labels(stack: SliceStack, labels: list[int], knowledge: SliceKnowledge) -> np.ndarray:
    """For each slice and label, whether the labelmap is right about the label on that slice.

    A clinician who labels the liver on five slices and the spleen on five others has not stated
    that there is no spleen on the liver's slices. So each label is known on slices of its own.

    A labelmap without a single voxel is taken to be empty on all slices with `empty="outside"`.
    What is drawn on unfinished slices is not known; but a structure that is drawn there is not
    taken to end before.

    Args:
        stack: the labelmap as slices.
        labels: the labels to learn.
        knowledge: what is stated about the slices.

    Returns:
        bool, (slices, labels).

    Raises:
        InputError: a slice number is out of range, or a slice that is stated to be empty, or lies
            outside the extent, holds a label and is not unfinished.
    """
    present = _present(stack, labels)
    _refuse_out_of_range(knowledge, len(stack))
    _refuse_labelled(knowledge.listed_empty, present, labels)
    finished = np.ones(len(stack), dtype=bool)
    finished[list(knowledge.unfinished)] = False
    known = _known_to_be_complete(present, knowledge) & finished[:, None]
    if knowledge.extent is not None:
        beyond = _beyond(knowledge.extent, len(stack)) & finished
        _refuse_outside(knowledge.extent, beyond, present, labels)
        known[beyond] = True
    elif knowledge.empty == "outside" and not stack.array.any():
        known[finished] = True
    elif knowledge.empty in ("auto", "outside"):
        known |= _beyond_labelled(known, present, finished, with_margin=knowledge.empty == "auto")
    known[knowledge.listed_empty] = True
    return known


def _present(stack: SliceStack, labels: list[int]) -> np.ndarray:
    others = tuple(axis for axis in range(3) if axis != stack.axis)
    return np.stack([(stack.array == label).any(axis=others) for label in labels], axis=1)


def _known_to_be_complete(present: np.ndarray, knowledge: SliceKnowledge) -> np.ndarray:
    """(slices, labels): where labels are drawn completely, unfinished slices included."""
    listed = knowledge.listed_labelled
    known = present.copy()
    if listed is not None:
        known[:] = False
        known[listed] = True
    known[list(knowledge.complete)] = True
    return known


def _beyond_labelled(
    known: np.ndarray, present: np.ndarray, finished: np.ndarray, with_margin: bool
) -> np.ndarray:
    """(slices, labels): where a label is taken to be absent, beyond the slices that show it."""
    absent = np.zeros_like(known)
    fewest = 2 if with_margin else 1
    for column in range(known.shape[1]):
        shown = known[:, column] & present[:, column]
        if np.count_nonzero(shown) < fewest:
            continue
        # What is drawn on unfinished slices does not count, but the structure reaches them.
        seen = np.flatnonzero(shown | (present[:, column] & ~finished))
        outside = _outside(seen, len(known), with_margin)
        # A slice that is missing in the list of labelled ones may hold a half-drawn label.
        absent[:, column] = outside & ~present[:, column] & finished
    return absent


def _outside(seen: np.ndarray, slices: int, with_margin: bool) -> np.ndarray:
    outside = np.zeros(slices, dtype=bool)
    margin = int(np.diff(seen).max()) - 1 if with_margin else 0
    outside[: max(0, seen[0] - margin)] = True
    outside[seen[-1] + margin + 1 :] = True
    return outside


def _beyond(extent: tuple[int, int], slices: int) -> np.ndarray:
    numbers = np.arange(slices)
    return (numbers < extent[0]) | (numbers > extent[1])


def _refuse_out_of_range(knowledge: SliceKnowledge, slices: int) -> None:
    stated: list[Sequence[int]] = [
        knowledge.complete,
        knowledge.unfinished,
        knowledge.known_empty,
        knowledge.extent or (),
        knowledge.listed_empty,
        knowledge.listed_labelled or (),
    ]
    for number in (each for numbers in stated for each in numbers):
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
