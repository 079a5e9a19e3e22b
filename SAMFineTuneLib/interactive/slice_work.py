"""Computes the features of each slice once: of the slice in view first, then of its neighbours.

In the background the work is done in small pieces, one stage of the image encoder at a time, so
that a click waits for one stage at most and never for a whole slice of a large network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from SAMFineTuneLib.interactive.embedding_cache import EmbeddingCache
from SAMFineTuneLib.networks.staged_encoder import FeatureState

Step = Callable[[FeatureState], FeatureState]


@dataclass(frozen=True)
class SliceWork:
    """How one kind of features is computed.

    Attributes:
        name: name of the features.
        begin: gives the state before the first step, from a slice number.
        steps: applied to the state one after another.
    """

    name: str
    begin: Callable[[int], FeatureState]
    steps: Sequence[Step]


class SliceWorker:
    """Computes features when they are asked for, and those of the other slices in advance.

    Args:
        works: every kind of features, in the order in which they are computed for a slice.
        slices: number of slices.
        cache: stores the features.
    """

    def __init__(self, works: Sequence[SliceWork], slices: int, cache: EmbeddingCache) -> None:
        self._works = {work.name: work for work in works}
        self._slices = slices
        self._cache = cache
        self._done: set[int] = set()
        self._order = _outward(0, slices)
        self._pieces: Iterator[None] = iter(())

    @property
    def done(self) -> int:
        """How many slices have been embedded in this session or were found in the cache."""
        return len(self._done)

    @property
    def done_slices(self) -> list[int]:
        """The numbers of the slices that `done` counts."""
        return sorted(self._done)

    @property
    def finished(self) -> bool:
        """Whether every slice is done, or the cache can hold no more."""
        return len(self._done) >= self._slices or self._cache.is_full

    @torch.inference_mode()
    def features(self, name: str, number: int) -> FeatureState:
        """The features of a slice, in half precision on the CPU, computed now if need be."""
        found = self._cache.get((name, number))
        if found is not None:
            return found
        work = self._works[name]
        state = work.begin(number)
        for step in work.steps:
            state = step(state)
        return self._cache.put((name, number), state)

    def look_at(self, number: int) -> None:
        """Computes everything for a slice now; `advance` goes on with its neighbours."""
        for name in self._works:
            self.features(name, number)
        self._done.add(number)
        self._order = _outward(number, self._slices)
        self._pieces = iter(())

    @torch.inference_mode()
    def advance(self) -> None:
        """Does one small piece of the work in advance."""
        if self.finished:
            return
        try:
            next(self._pieces)
        except StopIteration:
            number = next((each for each in self._order if each not in self._done), None)
            self._pieces = iter(()) if number is None else self._in_pieces(number)

    def _in_pieces(self, number: int) -> Iterator[None]:
        for name, work in self._works.items():
            if (name, number) in self._cache:
                continue
            state = work.begin(number)
            yield
            for step in work.steps:
                state = step(state)
                yield
            self._cache.put((name, number), state)
        self._done.add(number)


def _outward(start: int, slices: int) -> Iterator[int]:
    """All slice numbers, ordered by their distance from `start`."""
    return iter(sorted(range(slices), key=lambda number: (abs(number - start), number)))
