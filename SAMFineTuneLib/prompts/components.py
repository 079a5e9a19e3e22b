"""One connected part of a mask, because a prompt points at one object."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from SAMFineTuneLib.random_source import RandomSource


def random_component(mask: np.ndarray, smallest: float, random: RandomSource) -> np.ndarray:
    """One of a mask's connected parts; pixels that share a side are connected.

    Args:
        mask: (rows, columns) bool.
        smallest: share of the image that a part must exceed where the mask has several parts.
        random: chooses the part.

    Returns:
        The part, (rows, columns) bool; empty where there are several and all are too small.
    """
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())[1:]
    fitting = np.flatnonzero(sizes > smallest * mask.size)
    if not len(fitting):
        return np.zeros_like(mask)
    part: np.ndarray = parts == fitting[random.whole(0, len(fitting) - 1)] + 1
    return part


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask (rows, columns) that is not empty."""
    parts, _ = ndimage.label(mask)
    part: np.ndarray = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return part
