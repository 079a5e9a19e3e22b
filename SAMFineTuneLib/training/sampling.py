"""Batches for training, augmented, as pixels or as cached features."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState, joined
from SAMFineTuneLib.slices.augmentation import SliceAugmentation, usual_augmentation
from SAMFineTuneLib.slices.intensity import IntensityNormalisation
from SAMFineTuneLib.slices.pixels import channels_first, network_pixels
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.training.feature_cache import (
    CachedSample,
    FeatureCache,
    free_bytes,
    worthwhile_variants,
)
from SAMFineTuneLib.training.slice_pool import SlicePool


class Batch(NamedTuple):
    """What one optimiser step learns from.

    Attributes:
        state: input of the first encoder stage that trains.
        target: (B, S, S) class numbers.
        known: (B, classes) bool.
    """

    state: FeatureState
    target: Tensor
    known: Tensor


class SliceSampler:
    """Draws batches. A batch depends on the seed and the step alone, so that it can be drawn again.

    Where the encoder begins with frozen stages, their features are cached, and each slice has a
    fixed number of augmented variants. Otherwise every draw is augmented anew.

    Args:
        segmenter: the network, adapted.
        slices: all slices.
        seed: of all random numbers.
        samples: how many samples will be drawn in all; decides whether a cache pays.
        cache_folder: where cached features go; None caches nothing.
        normalisation: of the intensities of all slices.
        augment: makes the augmentation, from the side of the square and the normalisation.
        minutes: time limit of the fine-tune, None for none; where computing features takes much of
            it, each slice has fewer variants.
    """

    def __init__(
        self,
        segmenter: AutomaticSegmenter | PromptedSegmenter,
        slices: Sequence[LabelledSlice],
        seed: int,
        samples: int,
        cache_folder: Path | None,
        normalisation: IntensityNormalisation,
        augment: Callable[[int, IntensityNormalisation], SliceAugmentation] = usual_augmentation,
        minutes: float | None = None,
    ) -> None:
        self._network = segmenter.network
        self._slices = slices
        self._seed = seed
        self._augmentation = augment(self._network.input_size, normalisation)
        self._prefix = self._network.image_encoder.frozen_prefix() if cache_folder else 0
        self._cache: FeatureCache | None = None
        if self._prefix and cache_folder is not None:
            began = time.monotonic()
            example = self._compute(0, self._draw_seed(0, 0))
            each_s = time.monotonic() - began
            in_the_time = math.inf if minutes is None else 60 * minutes / each_s
            free = free_bytes(cache_folder)
            variants = worthwhile_variants(example, len(slices), samples, free, in_the_time)
            if variants:
                self._cache = FeatureCache(cache_folder, example, len(slices), variants)
            else:
                self._prefix = 0

    @property
    def start_stage(self) -> int:
        """The first encoder stage that a batch's state has not passed yet."""
        return self._prefix

    @property
    def cached_variants(self) -> int:
        """Augmented variants of each slice in the cache; 0 when nothing is cached."""
        return self._cache.variants if self._cache else 0

    def remove_cache(self) -> None:
        """Deletes the cached features; no batch can be drawn afterwards."""
        if self._cache is not None:
            self._cache.remove()

    def batch(self, pool: SlicePool, size: int, step: int) -> Batch:
        """The batch of a step, drawn from a pool of these slices."""
        chosen = pool.draw(size, np.random.default_rng([self._seed, 2, step]))
        samples = [
            self._sample(position, step * size + place) for place, position in enumerate(chosen)
        ]
        device = next(self._network.parameters()).device
        state = joined([sample.state for sample in samples], device)
        known = torch.from_numpy(np.stack([self._slices[each].known for each in chosen]))
        target = torch.stack([sample.target for sample in samples])
        return Batch(state, target.to(device), known.to(device))

    def _sample(self, position: int, draw: int) -> CachedSample:
        if self._cache is None:
            return self._compute(position, self._draw_seed(position, draw))
        random = np.random.default_rng([self._seed, 3, draw])
        key = (position, int(random.integers(self._cache.variants)))
        kept = self._cache.get(key)
        if kept is not None:
            return kept
        return self._cache.put(key, self._compute(position, self._draw_seed(*key)))

    def _draw_seed(self, position: int, draw: int) -> int:
        return int(np.random.SeedSequence([self._seed, position, draw]).generate_state(1)[0])

    def _compute(self, position: int, seed: int) -> CachedSample:
        each = self._slices[position]
        size = self._network.input_size
        fit = SquareFit(*each.shape, each.spacing, size)
        moved = self._augmentation.positions(seed)
        image = fit.image_to_square(channels_first(each.image), moved)
        image = self._augmentation.intensity(image, seed)
        target = fit.mask_to_square(torch.from_numpy(each.target), moved).to(torch.int32)
        pixels = network_pixels(image, each.window, self._network.spec.normalisation)[None]
        state = FeatureState(pixels)
        if self._prefix:
            device = next(self._network.parameters()).device
            with torch.no_grad():
                state = self._network.image_encoder.run(
                    FeatureState(pixels.to(device)), 0, self._prefix
                )
        return CachedSample(state, target)
