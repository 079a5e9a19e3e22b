"""The settings of a pre-training of the starter network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PretrainingPlan:
    """The settings of a pre-training.

    Attributes:
        steps: optimiser steps in all.
        episodes: for each step, in each process.
        images: for each episode, at 160 pixels; fewer larger images, or more smaller ones.
        sizes: sides of the square images in pixels; each step draws one of them.
        learning_rate: highest of the schedule.
        warm_up: steps until it is reached.
        decay: share of the steps, the last ones, in which it falls to zero. Before that it is
            constant, so that a training can be continued with more steps.
        weight_decay: AdamW's.
        seed: of all random numbers.
        precision: "fp32", or "bf16" for mixed precision.
    """

    steps: int = 20_000
    episodes: int = 2
    images: int = 8
    sizes: tuple[int, ...] = (128, 160, 192, 256)
    learning_rate: float = 2e-3
    warm_up: int = 300
    decay: float = 0.3
    weight_decay: float = 0.02
    seed: int = 0
    precision: str = "fp32"

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: warm-up, plateau, linear decay to zero."""
        rising = min(1.0, (step + 1) / self.warm_up)
        remaining = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * rising * min(1.0, remaining)

    def images_at(self, size: int) -> int:
        """Images of an episode; the number of pixels is about the same for every size."""
        return max(3, min(12, round(self.images * (160 / size) ** 2)))
