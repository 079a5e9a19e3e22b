"""Unlabelled slices as a fine-tune sees them: as they are, and changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.slices.augmentation import SliceAugmentation
from SAMFineTuneLib.slices.intensity import IntensityNormalisation
from SAMFineTuneLib.slices.pixels import channels_first, network_pixels
from SAMFineTuneLib.slices.square import SquareFit


class UnlabelledViews(NamedTuple):
    """Two views of each slice of a batch.

    Attributes:
        plain: (B, 3, S, S) normalised pixels of the slices as they are.
        changed: (B, 3, S, S) those of the augmented slices.
        positions: (B, S, S, 2) for each pixel of `changed` its place (x, y) in `plain`, -1 to 1
            from edge to edge.
    """

    plain: Tensor
    changed: Tensor
    positions: Tensor


class UnlabelledSampler:
    """Draws unlabelled slices. What it draws depends on the seed and the step alone.

    Args:
        network: whose input the views are.
        slices: of which nothing is known.
        seed: of all random numbers.
        normalisation: of the intensities of all slices.
        augment: makes the augmentation, from the side of the square and the normalisation.
    """

    def __init__(
        self,
        network: SamNetwork,
        slices: Sequence[LabelledSlice],
        seed: int,
        normalisation: IntensityNormalisation,
        augment: Callable[[int, IntensityNormalisation], SliceAugmentation],
    ) -> None:
        self._network = network
        self._slices = slices
        self._seed = seed
        self._augmentation = augment(network.input_size, normalisation)

    def views(self, size: int, step: int) -> UnlabelledViews:
        """The views of a step, of `size` slices, or of all where there are fewer."""
        random = np.random.default_rng([self._seed, 5, step])
        chosen = random.choice(len(self._slices), min(size, len(self._slices)), replace=False)
        views = [self._views(self._slices[each], int(random.integers(2**31))) for each in chosen]
        device = next(self._network.parameters()).device
        return UnlabelledViews(*(torch.stack(each).to(device) for each in zip(*views, strict=True)))

    def _views(self, each: LabelledSlice, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        fit = SquareFit(*each.shape, each.spacing, self._network.input_size)
        image = channels_first(each.image)
        moved = self._augmentation.positions(seed)
        changed = self._augmentation.intensity(fit.image_to_square(image, moved), seed)
        plain = fit.image_to_square(image)
        return self._pixels(plain, each), self._pixels(changed, each), moved.float()

    def _pixels(self, image: Tensor, each: LabelledSlice) -> Tensor:
        return network_pixels(image, each.window, self._network.spec.normalisation)
