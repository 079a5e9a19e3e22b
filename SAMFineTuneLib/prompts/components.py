"""One connected part of a mask: a user points at one thing."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from SAMFineTuneLib.random_source import Chance


def random_component(mask: np.ndarray, smallest: float, chance: Chance) -> np.ndarray:
    """One of a mask's connected parts; pixels that share a side are connected.

    Args:
        mask: (rows, columns) bool.
        smallest: share of the image that a part must exceed where there are several.
        chance: which one.

    Returns:
        The part, (rows, columns) bool; empty where several are all too small.
    """
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())[1:]
    fitting = np.flatnonzero(sizes > smallest * mask.size)
    if not len(fitting):
        return np.zeros_like(mask)
    part: np.ndarray = parts == fitting[chance.whole(0, len(fitting) - 1)] + 1
    return part


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask (rows, columns) that is not empty."""
    parts, _ = ndimage.label(mask)
    part: np.ndarray = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return part
