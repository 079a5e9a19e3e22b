"""Segments that may overlap to one labelmap, in which each voxel has one label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.labelmap import smallest_label_type

_MOST_REMARKS = 3

# Two labels, the one on top first -> how many voxels they share.
_Shared = dict[tuple[int, int], int]


class Part(NamedTuple):
    """A part of a segment.

    Attributes:
        where: index of the part in the array of voxels.
        mask: bool, of the part's shape: which of these voxels belong to the segment.
    """

    where: Any
    mask: NDArray[np.bool_]


def flattened(
    path: Path,
    shape: tuple[int, int, int],
    segments: Mapping[int, Iterable[Part]],
    names: Mapping[int, str],
    on_top: Sequence[str] = (),
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """One label a voxel, shape (k, j, i), in the smallest type for the labels; and remarks.

    Only segments that share voxels need an order: those that `on_top` names cover those that it
    names later or not at all.

    Args:
        path: the file, for messages.
        shape: of the array.
        segments: label -> its parts, which are looked at once.
        names: label -> name.
        on_top: names or labels of segments, the uppermost first.

    Raises:
        InputError: two segments overlap and `on_top` names neither.
    """
    array = np.zeros(shape, smallest_label_type(max(segments, default=0)))
    ordered, unknown = _labels_named(segments, names, on_top)
    covered: _Shared = {}
    undecided: _Shared = {}
    # From top to bottom: a voxel keeps the label that it is given first.
    for label in (*ordered, *sorted(set(segments) - set(ordered))):
        for where, mask in segments[label]:
            below = array[where]
            below[mask & (below == 0)] = label
            array[where] = below
            above, counts = np.unique(below[mask & (below != label)], return_counts=True)
            for other, count in zip(above.tolist(), counts.tolist(), strict=True):
                shared = covered if other in ordered else undecided
                shared[other, label] = shared.get((other, label), 0) + count
    if undecided:
        raise _overlapping(path, undecided, names)
    return array, (*_unknown_remark(path, unknown), *_covered_remark(path, covered, names))


def _labels_named(
    segments: Iterable[int], names: Mapping[int, str], on_top: Sequence[str]
) -> tuple[list[int], list[str]]:
    """The labels that words name, in their order, and the words that name none."""
    labels: dict[int, None] = {}
    unknown = []
    for word in on_top:
        wanted = " ".join(word.split()).casefold()
        found = [
            label for label in segments if wanted in (names.get(label, "").casefold(), str(label))
        ]
        labels |= dict.fromkeys(found)
        if not found:
            unknown.append(word)
    return list(labels), unknown


def _overlapping(path: Path, shared: _Shared, names: Mapping[int, str]) -> InputError:
    pair = max(shared, key=lambda each: shared[each])
    first, second = (_called(label, names) for label in pair)
    more = f" (and {len(shared) - 1} more pairs overlap)" if len(shared) > 1 else ""
    return InputError(
        f"segments {first} and {second} of '{path}' overlap in {shared[pair]} voxels{more}, and a "
        "voxel can have one label only",
        f"Say which one covers the other, such as label {pair[0]}; or choose one of them, label "
        f"{pair[0]} or {pair[1]}; or take them apart in 3D Slicer",
        code="overlapping_segments",
        segment=str(pair[0]),
        label=pair[0],
    )


def _covered_remark(path: Path, covered: _Shared, names: Mapping[int, str]) -> list[str]:
    if not covered:
        return []
    most = sorted(covered, key=lambda pair: -covered[pair])
    which = ", ".join(
        f"{covered[above, below]} voxels of {_called(below, names)} are covered by "
        f"{_called(above, names)}"
        for above, below in most[:_MOST_REMARKS]
    )
    more = f", and {len(most) - _MOST_REMARKS} more" if len(most) > _MOST_REMARKS else ""
    return [f"segments of {path.name} overlap: {which}{more}"]


def _unknown_remark(path: Path, unknown: list[str]) -> list[str]:
    return [f"{path.name} has no segment {', '.join(unknown)} to put on top"] if unknown else []


def _called(label: int, names: Mapping[int, str]) -> str:
    return f"'{names[label]}'" if names.get(label) else f"label {label}"
