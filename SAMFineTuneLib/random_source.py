"""A seeded source of random numbers and smooth random maps, on any device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class RandomSource:
    """A source of random numbers: the same seed gives the same numbers on the same device.

    Args:
        seed: whole numbers, such as (seed, step, rank).
        device: the device of the tensors.
    """

    def __init__(self, seed: tuple[int, ...], device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self._numbers = np.random.default_rng(seed)
        self._tensors = torch.Generator(self.device)
        self._tensors.manual_seed(int(self._numbers.integers(2**62)))

    def happens(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self._numbers.random() < probability)

    def between(self, low: float, high: float) -> float:
        """A uniformly distributed number."""
        return float(self._numbers.uniform(low, high))

    def scale_between(self, low: float, high: float) -> float:
        """A number whose logarithm is uniformly distributed."""
        return float(np.exp(self._numbers.uniform(np.log(low), np.log(high))))

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return int(self._numbers.integers(low, high + 1))

    def permutation(self, count: int) -> list[int]:
        """The numbers 0 … count - 1 in random order."""
        return [int(each) for each in self._numbers.permutation(count)]

    def each_between(self, low: float, high: float, *shape: int) -> Tensor:
        """A tensor of uniformly distributed numbers."""
        return torch.rand(shape, generator=self._tensors, device=self.device) * (high - low) + low

    def each_whole(self, count: int, *shape: int) -> Tensor:
        """A tensor of whole numbers from 0 to `count` - 1."""
        return torch.randint(count, shape, generator=self._tensors, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """A tensor of normally distributed numbers."""
        return torch.randn(shape, generator=self._tensors, device=self.device)

    def smooth(self, count: int, points: int, size: int) -> Tensor:
        """Smooth maps (count, size, size), interpolated from `points` × `points` random numbers."""
        coarse = self.normal(1, count, points, points)
        fine = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
        return fine[0]

    def grainy(self, count: int, grain: float, size: int) -> Tensor:
        """Random maps (count, size, size), grains of about `grain` pixels; faster than `smooth`."""
        if grain <= 1:
            return self.normal(count, size, size)
        points = max(2, round(size / grain))
        coarse = self.normal(1, count, points, points)
        mode = "bilinear"
        return functional.interpolate(coarse, (size, size), mode=mode, align_corners=False)[0]
