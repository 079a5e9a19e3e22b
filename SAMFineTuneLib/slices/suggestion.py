"""Suggesting which slice to label next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def next_slice(
    count: int,
    labelled: Iterable[int],
    empty: Iterable[int],
    extent: tuple[int, int] | None = None,
    uncertainty: Sequence[float] | None = None,
) -> int | None:
    """The unknown slice from which most is learnt when it is labelled.

    That is the slice farthest from all known ones. Slices within the extent of the structures come
    first, or, where the extent is not stated, those between the first and the last labelled slice;
    then come the others. While nothing is labelled, the ends count as known, so that the middle is
    suggested first. Where the uncertainty of a model is given, the most uncertain slice is taken
    among those at least half as far from the known ones as the farthest, because neighbouring
    slices look alike.

    Args:
        count: number of slices along the axis.
        labelled: slices that are labelled.
        empty: slices known to hold none of the structures.
        extent: the first and the last slice that hold any structure; all beyond are empty.
        uncertainty: one figure for each slice, the larger the less certain; None where unknown.

    Returns:
        The number of the slice; of equally good ones the first. None where all are known.

    Raises:
        ValueError: a slice that does not exist, or not one figure for each slice.
    """
    numbers = np.arange(count)
    shown = _marked(count, labelled)
    first, last = _checked(count, extent) if extent is not None else (0, count - 1)
    known = shown | _marked(count, empty) | (numbers < first) | (numbers > last)
    if known.all():
        return None
    inside = _between(shown) if extent is None and shown.any() else ~known
    candidates = np.flatnonzero(~known & inside)
    if not len(candidates):
        candidates = np.flatnonzero(~known)
    places = np.flatnonzero(known)
    if not shown.any():
        places = np.append(places, (-1, count))
    distance = np.abs(candidates[:, None] - places).min(axis=1)
    doubt = np.zeros(count) if uncertainty is None else np.asarray(uncertainty, dtype=float)
    if len(doubt) != count:
        raise ValueError(f"{len(doubt)} figures of uncertainty for {count} slices")
    far = 2 * distance >= distance.max()
    candidates, distance = candidates[far], distance[far]
    # The last key counts first; of equal ones the sort keeps the order.
    return int(candidates[np.lexsort((-distance, -np.nan_to_num(doubt[candidates])))[0]])


def _marked(count: int, numbers: Iterable[int]) -> np.ndarray:
    marked = np.zeros(count, dtype=bool)
    marked[[_inside(count, number) for number in numbers]] = True
    return marked


def _checked(count: int, extent: tuple[int, int]) -> tuple[int, int]:
    first, last = (_inside(count, number) for number in extent)
    if first > last:
        raise ValueError(f"the extent begins at slice {first} and ends before, at {last}")
    return first, last


def _inside(count: int, number: int) -> int:
    if not 0 <= number < count:
        raise ValueError(f"there is no slice {number}: there are {count}, numbered from 0")
    return number


def _between(shown: np.ndarray) -> np.ndarray:
    between = np.zeros(len(shown), dtype=bool)
    places = np.flatnonzero(shown)
    between[places[0] : places[-1] + 1] = True
    return between
