"""Interpolates the shape of structures between labelled slices, without looking at the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Distance = NDArray[np.float32]


def interpolate(
    labelmap_array: NDArray[Any],
    axis: int,
    labelled: Mapping[int, Sequence[int]],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> NDArray[Any]:
    """Fill the slices between the labelled ones of each label.

    Between two labelled slices the signed distance to the outline is interpolated linearly, and the
    structure is where it is positive; if a voxel lies in two structures, it gets the label of the
    one in which it lies deeper. Labelled slices do not change, and a label is not continued beyond
    its first and last slice. Raya and Udupa, "Shape-based interpolation of multidimensional
    objects", 1990.

    Args:
        labelmap_array: labels, shape (k, j, i); only the labelled slices are read.
        axis: the axis of the array along which slices are cut.
        labelled: label -> numbers of its labelled slices.
        spacing: mm between voxels along each axis of the array (k, j, i).

    Returns:
        Labels, same shape and type.
    """
    source = np.moveaxis(labelmap_array, axis, 0)
    in_plane = [float(step) for n, step in enumerate(spacing) if n != axis]
    depth = np.zeros(source.shape, np.float32)
    found = np.zeros(source.shape, labelmap_array.dtype)
    for label, numbers in labelled.items():
        chosen = sorted(set(numbers))
        known = {number: signed_distance(source[number] == label, in_plane) for number in chosen}
        for number in chosen:
            # An infinite distance keeps a drawn voxel against any interpolated shape.
            drawn = np.where(known[number] > 0, np.float32(np.inf), known[number])
            _claim(found[number], depth[number], drawn, label)
        for first, last in pairwise(chosen):
            ends = {first: known[first], last: known[last]}
            for number in range(first + 1, last):
                _claim(found[number], depth[number], shape_between(ends, number), label)
    return np.moveaxis(found, 0, axis).copy()


def shape_between(ends: Mapping[int, Distance], number: int) -> Distance:
    """The shape on a slice between two others, as signed distance to its outline.

    Args:
        ends: numbers of the two slices, and the signed distances on them.
        number: number of the slice between them.
    """
    (first, before), (last, behind) = sorted(ends.items())
    part = (number - first) / (last - first)
    between: Distance = (1 - part) * before + part * behind
    return between


def signed_distance(mask: NDArray[np.bool_], spacing: Sequence[float]) -> Distance:
    """Distance to the outline of a 2-D mask in mm: positive inside, negative outside.

    For an empty mask it is everywhere the negative diagonal of the image.
    """
    if not mask.any():
        far = float(np.hypot(*(step * n for step, n in zip(spacing, mask.shape, strict=True))))
        return np.full(mask.shape, -far, np.float32)
    # A margin of background, so that a mask that reaches the image's edge ends there.
    padded = np.pad(mask, 1)
    inside = distance_transform_edt(padded, sampling=spacing)
    outside = distance_transform_edt(~padded, sampling=spacing)
    return (inside - outside)[1:-1, 1:-1].astype(np.float32)


def _claim(
    labels: NDArray[Any], depth: NDArray[np.float32], distance: Distance, label: int
) -> None:
    """Give `label` the voxels of a slice that lie deeper in it than in the labels so far."""
    deeper = distance > depth
    labels[deeper] = label
    depth[deeper] = distance[deeper]
