"""Which parameters decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def decayed_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameters that train, in groups for an optimiser.

    Biases, parameters of normalisation layers and other one-dimensional tensors do not decay.
    """
    training = [each for each in parameters if each.requires_grad]
    return [
        {"params": [each for each in training if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in training if each.ndim <= 1], "weight_decay": 0.0},
    ]
