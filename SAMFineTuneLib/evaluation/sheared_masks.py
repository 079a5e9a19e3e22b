"""Resamples masks from a grid whose axes are not perpendicular to one whose axes are.

Distances can be computed from spacings only if the axes are perpendicular to each other.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

# Axes count as perpendicular if the cosine of the angle between them is below this.
_PERPENDICULAR = 1e-4


def straightened(
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]], edges: NDArray[np.float64]
) -> tuple[tuple[NDArray[np.bool_], NDArray[np.bool_]], list[float]]:
    """The masks on a grid with perpendicular axes, and its spacings in mm.

    Planes along the last two axes are only shifted within themselves; masks whose axes are
    perpendicular are returned unchanged.

    Args:
        masks: two masks of the same shape, with two or three axes.
        edges: one column for each axis of the masks: the step in mm to the next voxel.
    """
    lengths = np.linalg.norm(edges, axis=0)
    unit = edges / lengths
    if np.abs(unit.T @ unit - np.eye(unit.shape[1])).max() < _PERPENDICULAR:
        return masks, lengths.tolist()
    # The decomposition begins with the last axis, which therefore keeps its direction.
    upper = np.linalg.qr(edges[:, ::-1], mode="r")
    upper *= np.sign(np.diag(upper))[:, None]
    spacing = np.diag(upper)
    shear = (upper / spacing[:, None])[::-1, ::-1]
    corners = np.array(list(product(*[(0, length - 1) for length in masks[0].shape])))
    moved = corners @ shear.T
    low = np.floor(moved.min(axis=0) + 1e-6)
    shape = tuple((np.ceil(moved.max(axis=0) - 1e-6) - low).astype(int) + 1)
    back = np.linalg.inv(shear)

    def on_straight_grid(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        found = affine_transform(mask.astype(np.uint8), back, back @ low, shape, order=0)
        return found.astype(bool)

    return (on_straight_grid(masks[0]), on_straight_grid(masks[1])), spacing[::-1].tolist()
