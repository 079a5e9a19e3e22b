"""Batches of unlabelled slices, each seen through a random crop."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.examples.prepared_slices import PreparedSlices
from SAMFineTuneLib.networks.spec import PixelNormalisation
from SAMFineTuneLib.slices.pixels import channels_first, network_pixels
from SAMFineTuneLib.slices.square import SquareFit, square_positions

# Share of a slice's area that a crop shows (He et al. 2022).
_SHARES = (0.2, 1.0)
_MIRRORED = 0.5
_THREADS = 4


class UnlabelledBatches:
    """Draws batches. What is drawn depends on the seed and the position in the training alone.

    Args:
        store: the slices.
        size: side of the square in pixels.
        pixels: how pixels are normalised.
        seed: of all random numbers.
    """

    def __init__(
        self, store: PreparedSlices, size: int, pixels: PixelNormalisation, seed: int
    ) -> None:
        self._store = store
        self._size = size
        self._pixels = pixels
        self._seed = seed
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def whole(self, positions: Sequence[int]) -> Tensor:
        """Slices of the store without a crop, (B, 3, S, S) normalised."""
        return torch.stack([self._square(position, None) for position in positions])

    def cropped(self, place: int) -> Tensor:
        """The slice at a place of the whole training, (3, S, S) normalised; from any thread."""
        epoch, number = divmod(place, len(self._store))
        random = np.random.default_rng([self._seed, 6, place])
        return self._square(int(self._order_in(epoch)[number]), random)

    def _order_in(self, epoch: int) -> NDArray[np.int64]:
        # One assignment of both, so that no thread sees the order of another epoch.
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng([self._seed, 5, epoch]).permutation(len(self._store))
            self._order = epoch, order
        return order

    def _square(self, position: int, random: np.random.Generator | None) -> Tensor:
        record = self._store.records[position]
        spacing = float(record["row_spacing"]), float(record["column_spacing"])
        image = channels_first(self._store.image(position))
        fit = SquareFit(int(record["rows"]), int(record["columns"]), spacing, self._size)
        crop = None if random is None else crop_positions(fit, random)
        square = fit.image_to_square(image, crop)
        return network_pixels(square, self._store.window(position), self._pixels)


class BatchesAhead:
    """Draws batches, each of which begins at the same distance behind the one before it.

    Args:
        batches: where slices come from.
        apart: the distance, in places of the training.
        ahead: whether the next batch is drawn in threads while a device computes.
    """

    def __init__(self, batches: UnlabelledBatches, apart: int, ahead: bool) -> None:
        self._batches = batches
        self._apart = apart
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="draw") if ahead else None
        self._waiting: dict[int, list[Future[Tensor]]] = {}

    def draw(self, first: int, count: int) -> Tensor:
        """The slices from place `first` on, (count, 3, S, S) normalised."""
        places = range(first, first + count)
        if self._pool is None:
            return torch.stack([self._batches.cropped(place) for place in places])
        waiting = self._waiting.pop(first, None) or self._begin(self._pool, first, count)
        following = first + self._apart
        self._waiting = {following: self._begin(self._pool, following, count)}
        return torch.stack([each.result() for each in waiting])

    def _begin(self, pool: ThreadPoolExecutor, first: int, count: int) -> list[Future[Tensor]]:
        return [pool.submit(self._batches.cropped, each) for each in range(first, first + count)]


def crop_positions(fit: SquareFit, random: np.random.Generator) -> Tensor:
    """Positions (S, S, 2) of a random square crop, mirrored or not, for `image_to_square`.

    The crop lies within the slice where it is smaller than it, and shares its edge otherwise.
    """
    side = float(np.sqrt(random.uniform(*_SHARES)))
    corner = []
    for covered in (fit.columns_on_square / fit.size, fit.rows_on_square / fit.size):
        corner.append(random.uniform(0, max(0.0, covered - side)))
    positions = square_positions(fit.size)
    if random.uniform() < _MIRRORED:
        positions = positions * torch.tensor([-1.0, 1.0])
    return (positions + 1) * side - 1 + 2 * torch.tensor(corner, dtype=torch.float32)
