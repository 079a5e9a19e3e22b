"""The mean teacher: a running average of the weights that a fine-tune trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from SAMFineTuneLib.training.trained_weights import TrainedWeights

# How much of the average remains after a step: it covers about the last fifty.
_KEPT = 0.98


class Teacher:
    """The average over the latest steps of the tensors that train (Tarvainen and Valpola, 2017).

    The frozen part of the network is not copied; the teacher predicts in the same network, which
    holds its weights meanwhile.

    Args:
        trained: the tensors that train.
        weights: the average that an earlier run had come to; empty for a new fine-tune.
    """

    def __init__(self, trained: TrainedWeights, weights: dict[str, Tensor]) -> None:
        self._trained = trained
        present = trained.present
        self._average = {
            name: weights[name].to(each.device) if weights else each.clone()
            for name, each in present.items()
        }

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Takes the weights after a step into the average.

        Args:
            step: its number, from 1. The first ones count equally, so that the random weights of a
                new head are forgotten.
        """
        kept = min(_KEPT, 1 - 1 / step)
        for name, each in self._trained.present.items():
            self._average[name].lerp_(each, 1 - kept)

    @contextmanager
    def in_network(self) -> Iterator[None]:
        """The network holds the teacher's weights; afterwards it holds its own again."""
        own = {name: each.clone() for name, each in self._trained.present.items()}
        self._trained.load(self._average)
        try:
            yield
        finally:
            self._trained.load(own)

    def copied(self) -> dict[str, Tensor]:
        """Copies of the teacher's weights on the CPU, for a checkpoint."""
        return {name: each.cpu().clone() for name, each in self._average.items()}
