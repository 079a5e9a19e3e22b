"""Measures a network on the slices that are held out of its fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState, joined
from SAMFineTuneLib.prediction.slice_prediction import embed, probabilities_from
from SAMFineTuneLib.training.feature_cache import CachedSample, FeatureCache
from SAMFineTuneLib.training.held_out_distances import HeldOutDistances, distances_between
from SAMFineTuneLib.training.temperature import TemperatureSample


@dataclass(frozen=True)
class ValidationDsc:
    """DSC by class number, over the pixels of all held-out slices on which the class is known.

    A class that occurs neither in the labels nor in the prediction has no DSC.
    """

    by_class: dict[int, float | None]

    @property
    def mean(self) -> float | None:
        """Mean over the classes that have one; None when none has."""
        values = [value for value in self.by_class.values() if value is not None]
        return float(np.mean(values)) if values else None


class Validation:
    """Predicts the held-out slices, including empty ones, as `apply` would, without prompts.

    The features of the encoder's frozen stages are computed at the first validation and cached.

    Args:
        segmenter: the network, adapted.
        slices: the held-out slices, at least one.
        batch: slices at a time.
        cache_folder: where frozen features go.
    """

    def __init__(
        self,
        segmenter: AutomaticSegmenter,
        slices: Sequence[LabelledSlice],
        batch: int,
        cache_folder: Path,
    ) -> None:
        self._segmenter = segmenter
        self._slices = slices
        self._batches = _batches(slices, batch)
        self._cache_folder = cache_folder
        self._prefix = segmenter.network.image_encoder.frozen_prefix()
        self._cache: FeatureCache | None = None

    def measure(self, check: Callable[[], None] = lambda: None) -> ValidationDsc:
        """The DSC of the network with its present weights. Its mode (train or eval) is restored.

        Args:
            check: called between batches; may raise to stop.
        """
        classes = len(self._slices[0].known)
        overlap, sizes = np.zeros(classes), np.zeros(classes)
        for each, probabilities in self._probabilities(check):
            predicted = probabilities.argmax(0).cpu().numpy()
            for number in np.flatnonzero(each.known):
                found, truth = predicted == number, each.target == number
                overlap[number] += (found & truth).sum()
                sizes[number] += found.sum() + truth.sum()
        return ValidationDsc(
            {
                number: float(2 * overlap[number] / sizes[number]) if sizes[number] else None
                for number in range(1, classes)
            }
        )

    def distances_and_temperature(
        self, check: Callable[[], None] = lambda: None
    ) -> tuple[HeldOutDistances, float]:
        """The distances between outlines, likewise, which take longer than the DSC.

        In the same pass, the temperature at which the slices' true classes are likeliest.

        Args:
            check: called between batches; may raise to stop.
        """
        sample = TemperatureSample(len(self._slices))

        def predictions() -> Iterator[tuple[LabelledSlice, np.ndarray]]:
            for each, probabilities in self._probabilities(check):
                sample.add(each, probabilities)
                yield each, probabilities.argmax(0).cpu().numpy()

        distances = distances_between(predictions())
        check()
        return distances, sample.best_temperature()

    def remove_cache(self) -> None:
        """Deletes the cached features; the next measurement computes them again."""
        if self._cache is not None:
            self._cache.remove()
            self._cache = None

    def _probabilities(self, check: Callable[[], None]) -> Iterator[tuple[LabelledSlice, Tensor]]:
        """Each slice with the class probabilities (classes, rows, columns) predicted on it."""
        was_training = self._segmenter.training
        self._segmenter.eval()
        for positions in self._batches:
            check()
            slices = [self._slices[position] for position in positions]
            yield from zip(slices, self._predicted(positions), strict=True)
        self._segmenter.train(was_training)

    def _predicted(self, positions: list[int]) -> Tensor:
        first = self._slices[positions[0]]
        if self._prefix:
            states = [self._frozen_features(position) for position in positions]
            device = next(self._segmenter.parameters()).device
            state = joined(states, device)
        else:
            images = [self._slices[position].image for position in positions]
            state = embed(self._segmenter.network, images, first.window, first.spacing, 0)
        return probabilities_from(self._segmenter, state, first.shape, first.spacing, self._prefix)

    def _frozen_features(self, position: int) -> FeatureState:
        key = (position, 0)
        kept = None if self._cache is None else self._cache.get(key)
        if kept is not None:
            return kept.state
        each = self._slices[position]
        network = self._segmenter.network
        state = embed(network, [each.image], each.window, each.spacing, self._prefix)
        sample = CachedSample(state, torch.zeros(1, dtype=torch.int32))
        if self._cache is None:
            self._cache = FeatureCache(self._cache_folder, sample, len(self._slices), 1)
        return self._cache.put(key, sample).state


def _batches(slices: Sequence[LabelledSlice], size: int) -> list[list[int]]:
    """Batches of positions; slices of one batch are of one volume, with one shape and window.

    The frames of a volume have windows of their own.
    """
    batches = []
    kinds = [(each.volume, each.window) for each in slices]
    for _, group in groupby(range(len(slices)), key=kinds.__getitem__):
        same = list(group)
        batches += [same[start : start + size] for start in range(0, len(same), size)]
    return batches
