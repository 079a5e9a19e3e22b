"""Draws segments that may overlap into one labelmap, in which each voxel has one label."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.labelmap import smallest_label_type

_MOST_LISTED = 3


class Part(NamedTuple):
    """A part of a segment.

    Attributes:
        where: index of the part in the array of voxels.
        mask: bool, of the part's shape: which of these voxels belong to the segment.
    """

    where: Any
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Segment:
    """A segment that is to be drawn.

    Attributes:
        label: its label, which no other segment has.
        name: its name, "" if it has none.
        parts: returns its parts; they are asked for again only if the segment is refused.
    """

    label: int
    name: str
    parts: Callable[[], Iterable[Part]]

    @property
    def called(self) -> str:
        """Its name in messages."""
        return f"'{self.name}'" if self.name else f"label {self.label}"


class _Covered(NamedTuple):
    """Voxels of one segment that another one covers."""

    above: Segment
    below: Segment
    voxels: int


def flattened(
    path: Path,
    shape: tuple[int, ...],
    segments: Sequence[Segment],
    on_top: Sequence[str] = (),
    wanted: Collection[int] | None = None,
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Segments as one labelmap, shape (k, j, i), in the smallest type for the labels; and remarks.

    Only segments that share voxels need an order: those that `on_top` names cover those that it
    names later or not at all.

    Args:
        path: the file, named in messages.
        shape: shape of the array.
        segments: the segments.
        on_top: names or labels of segments, the uppermost first. One text may hold several,
            separated by commas.
        wanted: the labels that will be used; None for all. Where one of them overlaps with a
            segment that is not among them, it stays whole.

    Raises:
        InputError: two segments that will be used overlap and `on_top` names neither.
    """
    ranks, unknown = _ranks(segments, on_top)
    array, covered = _drawn(segments, shape, ranks, wanted)
    absent = f"{', '.join(unknown)} is no segment of {path.name}, which has {_listed(segments)}"
    _refuse_undecided(path, shape, covered, ranks, wanted, f" ({absent})" if unknown else "")
    remarks = [f"to be on top: {absent}"] if unknown else []
    # It does not matter what covers a structure that is not used.
    used = [each for each in covered if wanted is None or each.below.label in wanted]
    return array, (*remarks, *_covering(path, used))


def first_few(parts: Sequence[str]) -> str:
    """The first three texts in a list, and how many more there are."""
    more = len(parts) - _MOST_LISTED
    return ", ".join(parts[:_MOST_LISTED]) + (f", and {more} more" if more > 0 else "")


def _ranks(segments: Sequence[Segment], on_top: Sequence[str]) -> tuple[dict[int, int], list[str]]:
    """Label -> its place from the top, 0 first; and the texts that name no segment."""
    ranks: dict[int, int] = {}
    unknown = []
    for text in on_top:
        whole = _named(segments, text)
        parts = [text] if whole else [part.strip() for part in text.split(",") if part.strip()]
        for part in parts:
            named = _named(segments, part)
            if not named:
                unknown.append(part)
            for segment in named:
                ranks.setdefault(segment.label, len(ranks))
    return ranks, unknown


def _named(segments: Sequence[Segment], text: str) -> list[Segment]:
    """The segments of this name, in the same case or else in any, or else the one of this label."""
    wanted = " ".join(text.split())
    for same in (str, str.casefold):
        named = [each for each in segments if wanted and same(each.name) == same(wanted)]
        if named:
            return named
    return [each for each in segments if str(each.label) == wanted]


def _drawn(
    segments: Sequence[Segment],
    shape: tuple[int, ...],
    ranks: Mapping[int, int],
    wanted: Collection[int] | None,
) -> tuple[NDArray[Any], list[_Covered]]:
    """The labelmap, and what was covered in it."""
    by_label = {segment.label: segment for segment in segments}
    array = np.zeros(shape, smallest_label_type(max(by_label, default=0)))
    shared: dict[tuple[int, int], int] = {}

    def place(segment: Segment) -> tuple[int, bool]:
        unwanted = wanted is not None and segment.label not in wanted
        return ranks.get(segment.label, len(ranks)), unwanted

    # From top to bottom: a voxel keeps the label that it gets first.
    for segment in sorted(segments, key=place):
        for where, mask in segment.parts():
            part = array[where]
            above, counts = np.unique(part[mask], return_counts=True)
            for label, count in zip(above.tolist(), counts.tolist(), strict=True):
                if label not in (0, segment.label):
                    pair = label, segment.label
                    shared[pair] = shared.get(pair, 0) + count
            part[mask & (part == 0)] = segment.label
            array[where] = part
    return array, [
        _Covered(by_label[above], by_label[below], count)
        for (above, below), count in shared.items()
    ]


def _refuse_undecided(
    path: Path,
    shape: tuple[int, ...],
    covered: Sequence[_Covered],
    ranks: Mapping[int, int],
    wanted: Collection[int] | None,
    absent: str,
) -> None:
    undecided = [
        each
        for each in covered
        if each.above.label not in ranks
        and (wanted is None or {each.above.label, each.below.label} <= set(wanted))
    ]
    if not undecided:
        return
    worst = max(undecided, key=lambda each: each.voxels)
    above, below = worst.above, worst.below
    more = f" (and {len(undecided) - 1} more pairs overlap)" if len(undecided) > 1 else ""
    masks = [_whole_mask(each, shape) for each in (above, below)]
    both = int(np.count_nonzero(masks[0] & masks[1]))
    # A segment that lies within another is the smaller one.
    top = above if np.count_nonzero(masks[0]) <= np.count_nonzero(masks[1]) else below
    name = top.name or str(top.label)
    raise InputError(
        f"segments {above.called} and {below.called} of '{path}' overlap in {both} voxels{more}, "
        f"and a voxel can have one label only{absent}",
        f"Say which one covers the other, such as {name}; or choose one of them, such as label "
        f"{top.label}; or take them apart in 3D Slicer",
        code="overlapping_segments",
        segment=name,
        label=top.label,
    )


def _whole_mask(segment: Segment, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """All voxels of a segment, including those that others cover."""
    whole = np.zeros(shape, bool)
    for where, mask in segment.parts():
        whole[where] |= mask
    return whole


def _covering(path: Path, covered: Sequence[_Covered]) -> list[str]:
    if not covered:
        return []
    which = first_few(
        [
            f"{each.voxels} voxels of {each.below.called} are covered by {each.above.called}"
            for each in sorted(covered, key=lambda each: -each.voxels)
        ]
    )
    return [f"segments of {path.name} overlap: {which}"]


def _listed(segments: Sequence[Segment]) -> str:
    return first_few([f"{each.label} {each.name}".strip() for each in segments])
