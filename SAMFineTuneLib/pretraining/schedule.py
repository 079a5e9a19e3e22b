"""Learning rate and progress of the pre-trainings on real images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn


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


def decayed_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameters that train, for an optimiser; biases and norms do not decay."""
    training = [each for each in parameters if each.requires_grad]
    return [
        {"params": [each for each in training if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in training if each.ndim <= 1], "weight_decay": 0.0},
    ]
