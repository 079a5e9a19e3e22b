"""What the edges of an image say about voxels between others that are known: a random walk.

A walker steps from voxel to neighbouring voxel, the more readily the more alike both are. The
probability that it comes to a voxel known to be inside before one known to be outside is the
solution of one sparse system of equations (Grady, Random Walks for Image Segmentation, IEEE PAMI
2006). A prior probability, to which every voxel is bound by a weak edge, says what is likely where
the image shows nothing (Grady, Multilabel Random Walker Image Segmentation Using Prior Models, CVPR
2005).

By itself such a walk makes structures smaller where the image shows no edge, because there is more
known outside around a structure than inside. So a second walk, through an image without edges, is
set against it: the odds of the first divided by those of the second are what the edges say, and the
prior's odds are multiplied by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg

# Squared differences of neighbours are measured by this share of their mean within the slices, so
# that neither the units of an image nor its noise matter.
_CONTRAST = 0.2
# Weight of an edge across any contrast, as a share of that between equal voxels.
_LEAST_WEIGHT = 1e-6
# Weight of the edge to the prior, as a share of that between equal neighbours in a slice.
_PRIOR_WEIGHT = 0.01
_TOLERANCE, _MOST_ITERATIONS = 1e-3, 300
# Probabilities are taken to be at least so far from 0 and 1.
_DOUBT = 1e-4

Volume = NDArray[np.float32]


class _Edges(NamedTuple):
    """Pairs of neighbours of which one is unknown.

    Attributes:
        first: flat indices.
        second: likewise.
        alike: how alike both are, from 0 to 1.
        near: how near, 1 for neighbours in a column.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    alike: NDArray[np.float64]
    near: NDArray[np.float64]


def random_walk(
    levels: NDArray[np.float32],
    known: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    prior: Volume,
    spacing: Sequence[float],
) -> Volume:
    """The probability of each voxel to be inside.

    Args:
        levels: (slices, rows, columns, images), grey levels of each image.
        known: (slices, rows, columns), where it is known whether a voxel is inside.
        inside: where it is inside; counts on known voxels only.
        prior: probability from 0 to 1 to be inside; counts on unknown voxels only.
        spacing: mm between slices, rows and columns.

    Returns:
        (slices, rows, columns), from 0 to 1; 0 or 1 on known voxels.
    """
    found = np.where(known, inside, prior).astype(np.float32)
    unknown = np.flatnonzero(~known)
    if len(unknown):
        edges = _edges(levels, spacing, known)
        by_image = _reached(edges.alike * edges.near, edges, found, unknown)
        by_nothing = _reached(edges.alike.mean() * edges.near, edges, found, unknown)
        log_odds = _log_odds(by_image) - _log_odds(by_nothing) + _log_odds(found.ravel()[unknown])
        found.ravel()[unknown] = 1 / (1 + np.exp(-log_odds))
    return found


def _reached(
    weights: NDArray[np.float64], edges: _Edges, certain: Volume, unknown: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The probability of each unknown voxel that a walker from it comes to the inside first."""
    count = len(unknown)
    place = np.full(certain.size, -1)
    place[unknown] = np.arange(count)
    values = certain.ravel().astype(np.float64)
    degree = np.full(count, _PRIOR_WEIGHT)
    answer = _PRIOR_WEIGHT * values[unknown]
    for here, there in ((edges.first, edges.second), (edges.second, edges.first)):
        own = place[here] >= 0
        degree += np.bincount(place[here[own]], weights[own], count)
        fixed = own & (place[there] < 0)
        answer += np.bincount(place[here[fixed]], weights[fixed] * values[there[fixed]], count)
    free = (place[edges.first] >= 0) & (place[edges.second] >= 0)
    pairs = (place[edges.first[free]], place[edges.second[free]])
    half = sparse.coo_matrix((weights[free], pairs), shape=(count, count))
    solution, _ = cg(
        (sparse.diags(degree) - half - half.T).tocsr(),
        answer,
        x0=values[unknown],
        rtol=_TOLERANCE,
        maxiter=_MOST_ITERATIONS,
        M=sparse.diags(1 / degree),
    )
    reached: NDArray[np.float64] = solution
    return reached


def _edges(
    levels: NDArray[np.float32], spacing: Sequence[float], known: NDArray[np.bool_]
) -> _Edges:
    numbers = np.arange(known.size).reshape(known.shape)
    grey = levels.reshape(known.size, -1)
    free = ~known.ravel()
    contrast = _CONTRAST * _mean_square(levels)
    parts = []
    for axis in range(known.ndim):
        before, after = (np.delete(numbers, end, axis).ravel() for end in (-1, 0))
        counts = free[before] | free[after]
        first, second = before[counts], after[counts]
        squares = ((grey[first] - grey[second]).astype(np.float64) ** 2).mean(1)
        alike = np.exp(-squares / contrast) + _LEAST_WEIGHT
        near = np.full(len(first), (spacing[1] / spacing[axis]) ** 2)
        parts.append(_Edges(first, second, alike, near))
    return _Edges(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _mean_square(levels: NDArray[np.float32]) -> float:
    """The mean of the squared differences of neighbours within the slices."""
    differences = [np.diff(levels, axis=axis).ravel() for axis in (1, 2)]
    squares = np.concatenate(differences).astype(np.float64) ** 2
    return float(squares.mean()) + 1e-12 if len(squares) else 1.0


def _log_odds(probability: NDArray[np.floating]) -> NDArray[np.floating]:
    bounded = probability.clip(_DOUBT, 1 - _DOUBT)
    odds: NDArray[np.floating] = np.log(bounded / (1 - bounded))
    return odds
