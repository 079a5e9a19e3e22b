"""Which of a volume's known slices a fine-tune keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from SAMFineTuneLib.slices.known_labels import known_labels
from SAMFineTuneLib.slices.slice_knowledge import SliceKnowledge
from SAMFineTuneLib.slices.stack import SliceStack

# Empty slices that are kept for every labelled one. Empty slices teach little and look alike. In a
# volume without any structure, the labelled slices of the other volumes count, on average.
_EMPTY_PER_LABELLED = 2
_FEWEST_EMPTY = 4


class KnownSlice(NamedTuple):
    """One slice as it lies in the files, with the labels that are known on it.

    Attributes:
        number: slice number in the volume.
        pixels: (rows, columns) intensities.
        mask: (rows, columns) numbers of the segmentation.
        known: (labels,) bool, for each label whether `mask` is right about it.
    """

    number: int
    pixels: np.ndarray
    mask: np.ndarray
    known: np.ndarray


def kept_slices(
    images: SliceStack, masks: SliceStack, labels: list[int], knowledge: SliceKnowledge
) -> list[KnownSlice]:
    """All labelled slices, all that the user listed, and a selection of the other empty ones."""
    slices = _known_slices(images, masks, labels, knowledge)
    labelled = [each for each in slices if np.isin(labels, each.mask)[each.known].any()]
    most = most_empty(len(labelled))
    listed = {*knowledge.complete, *knowledge.listed_empty}
    shown = {each.number for each in labelled}
    kept = labelled + [each for each in slices if each.number in listed - shown]
    numbers = {each.number for each in kept}
    others = [each for each in slices if each.number not in numbers]
    return _copied(sorted(kept + _spread(others, most), key=lambda each: each.number))


def kept_empty_slices(
    images: SliceStack,
    masks: SliceStack,
    labels: list[int],
    knowledge: SliceKnowledge,
    most: int,
) -> list[KnownSlice]:
    """At most `most` known slices of a volume that shows no structure, evenly spread."""
    return _copied(_spread(_known_slices(images, masks, labels, knowledge), most))


def most_kept_without_structure(labelled: Sequence[int]) -> int:
    """How many slices are kept of a volume without any structure.

    Args:
        labelled: the number of labelled slices in each of the other volumes.
    """
    return most_empty(sum(labelled) / len(labelled))


def most_empty(labelled: float) -> int:
    """How many empty slices are kept beside so many labelled ones."""
    return max(_FEWEST_EMPTY, round(_EMPTY_PER_LABELLED * labelled))


def _known_slices(
    images: SliceStack, masks: SliceStack, labels: list[int], knowledge: SliceKnowledge
) -> list[KnownSlice]:
    """The slices on which at least one label is known."""
    known = known_labels(masks, labels, knowledge)
    return [
        KnownSlice(number, images[number], masks[number], known[number])
        for number in np.flatnonzero(known.any(axis=1)).tolist()
    ]


def _spread(slices: list[KnownSlice], most: int) -> list[KnownSlice]:
    """At most `most` of the slices, evenly spread."""
    if len(slices) <= most:
        return slices
    chosen = np.unique(np.linspace(0, len(slices) - 1, most).round().astype(int))
    return [slices[position] for position in chosen]


def _copied(slices: list[KnownSlice]) -> list[KnownSlice]:
    """The slices with arrays of their own, so that the whole volume need not stay in memory."""
    return [each._replace(pixels=each.pixels.copy(), mask=each.mask.copy()) for each in slices]
