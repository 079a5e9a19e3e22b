"""The learning rate of a pre-training whose end is known."""

from __future__ import annotations

import math


def warm_up_cosine(progress: float, highest: float, warm_up: float) -> float:
    """The learning rate: it rises in proportion, then falls to 0 by half a cosine.

    Args:
        progress: share of the training that is done, 0 to 1.
        highest: the rate at the end of the rise.
        warm_up: share of the training in which it rises.
    """
    if progress < warm_up:
        return highest * progress / warm_up
    falling = min(1.0, (progress - warm_up) / (1 - warm_up))
    return highest * 0.5 * (1 + math.cos(math.pi * falling))
