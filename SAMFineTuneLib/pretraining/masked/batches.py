"""Batches of unlabelled slices, each seen through a random crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.examples.prepared_slices import PreparedSlices
from SAMFineTuneLib.networks.spec import PixelNormalisation
from SAMFineTuneLib.slices.pixels import channels_first, network_pixels
from SAMFineTuneLib.slices.square import SquareFit, square_positions

# Share of a slice's area that a crop shows (He et al. 2022).
_SHARES = (0.2, 1.0)
_MIRRORED = 0.5


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
        self._epoch = -1
        self._order: list[int] = []

    def draw(self, first: int, count: int) -> Tensor:
        """The slices from the `first` of the whole training on, (count, 3, S, S) normalised."""
        return torch.stack([self._cropped(place) for place in range(first, first + count)])

    def whole(self, positions: Sequence[int]) -> Tensor:
        """Slices of the store without a crop, (B, 3, S, S) normalised."""
        return torch.stack([self._square(position, None) for position in positions])

    def _cropped(self, place: int) -> Tensor:
        epoch, number = divmod(place, len(self._store))
        if epoch != self._epoch:
            shuffled = np.random.default_rng([self._seed, 5, epoch])
            self._order = [int(each) for each in shuffled.permutation(len(self._store))]
            self._epoch = epoch
        random = np.random.default_rng([self._seed, 6, place])
        return self._square(self._order[number], random)

    def _square(self, position: int, random: np.random.Generator | None) -> Tensor:
        record = self._store.records[position]
        spacing = float(record["row_spacing"]), float(record["column_spacing"])
        image = channels_first(self._store.image(position))
        fit = SquareFit(int(record["rows"]), int(record["columns"]), spacing, self._size)
        crop = None if random is None else crop_positions(fit, random)
        square = fit.image_to_square(image, crop)
        return network_pixels(square, self._store.window(position), self._pixels)


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
