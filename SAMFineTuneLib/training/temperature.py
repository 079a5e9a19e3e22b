"""The temperature by which a model's probabilities become as certain as they should be.

A network that was fitted to few slices is surer of itself than it is right. Its logits divided by
one number, the temperature, give probabilities that are as often right as they say, and the same
class has the largest one (Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural
networks", 2017). It is the one that makes the true classes of held-out slices likeliest.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.training.loss import merge_unknown

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.5, 5.0
# Values of probabilities that are kept, over all slices and classes: 8 MB.
_MOST_VALUES = 1 << 21
# Of the logarithm of the temperature.
_PRECISION = 0.002


class TemperatureSample:
    """Pixels of held-out slices with what was predicted of them.

    Args:
        slices: how many will be added. The more there are, the fewer pixels are kept of each.
    """

    def __init__(self, slices: int) -> None:
        self._values_a_slice = max(1, _MOST_VALUES // max(1, slices))
        self._random = np.random.default_rng(0)
        self._pixels: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, each: LabelledSlice, probabilities: Tensor) -> None:
        """Keeps some pixels of a slice, or all of a small one.

        Args:
            each: the slice.
            probabilities: (classes, rows, columns) that were predicted on it, background first.
        """
        flat = probabilities.flatten(1)
        classes, pixels = flat.shape
        wanted = min(pixels, max(1, self._values_a_slice // classes))
        target = torch.from_numpy(each.target.ravel().astype(np.int64))
        if wanted < pixels:
            chosen = torch.from_numpy(self._random.choice(pixels, wanted, replace=False))
            flat, target = flat[:, chosen.to(flat.device)], target[chosen]
        # The logits but for a constant of each pixel, which the softmax does not see.
        logits = flat.float().clamp_min(torch.finfo(torch.float32).tiny).log().cpu()
        self._pixels.append((logits, target, torch.from_numpy(each.known)))

    def negative_log_likelihood(self, temperature: float) -> float:
        """The mean over pixels; a class that is unknown on a slice counts as background there."""
        total, count = 0.0, 0
        for logits, target, known in self._pixels:
            logs = merge_unknown((logits / temperature)[None, :, :, None], known[None])[0, :, :, 0]
            total -= float(logs.gather(0, target[None]).double().sum())
            count += target.numel()
        return total / max(1, count)

    def best_temperature(self) -> float:
        """The one with the least negative log-likelihood, from 0.5 to 5; 1 without any pixel."""
        from scipy.optimize import minimize_scalar

        if not self._pixels:
            return 1.0
        found = minimize_scalar(
            lambda logarithm: self.negative_log_likelihood(math.exp(logarithm)),
            bounds=(math.log(LEAST_TEMPERATURE), math.log(LARGEST_TEMPERATURE)),
            method="bounded",
            options={"xatol": _PRECISION},
        )
        return round(math.exp(found.x), 3)
