"""A volume's slices behind the image encoder, for any number of prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.spec import PixelNormalisation
from SAMFineTuneLib.networks.staged_encoder import FeatureState, joined
from SAMFineTuneLib.slices.intensity import IntensityWindow
from SAMFineTuneLib.slices.pixels import network_pixels
from SAMFineTuneLib.slices.square import SquareFit
from Testing.benchmarks.simulated_user import SimulatedUser
from Testing.benchmarks.single_slices import Target, TargetVolume

_BATCH = 8


class EmbeddedVolume:
    """Embeds each slice with targets once.

    Args:
        segmenter: the network.
        volume: slices and targets.
    """

    def __init__(self, segmenter: PromptedSegmenter, volume: TargetVolume) -> None:
        self._segmenter = segmenter
        self._fit = fit_of(volume, segmenter.network.input_size)
        self._place = {number: place for place, number in enumerate(volume.images)}
        images = [
            on_square(image, volume.window, self._fit, segmenter.network.spec.normalisation)
            for image in volume.images.values()
        ]
        batches = torch.stack(images).split(_BATCH)
        self._features = joined([segmenter.encode(each) for each in batches], torch.device("cpu"))

    def user(self, targets: Sequence[Target]) -> SimulatedUser:
        """One who points at some of the volume's targets."""
        places = [self._place[target.slice] for target in targets]
        features = FeatureState(
            self._features.x[places], tuple(each[places] for each in self._features.skips)
        )
        return SimulatedUser(self._segmenter, features, self._fit, targets)


def fit_of(volume: TargetVolume, size: int) -> SquareFit:
    """How the volume's slices lie on a square of `size` pixels."""
    rows, columns = next(iter(volume.images.values())).shape
    return SquareFit(rows, columns, volume.spacing, size)


def on_square(
    image: NDArray[np.float32],
    window: IntensityWindow,
    fit: SquareFit,
    normalisation: PixelNormalisation = "unit",
) -> Tensor:
    """Grey levels (rows, columns) to (3, S, S) as a backbone expects them."""
    return network_pixels(fit.image_to_square(torch.from_numpy(image)), window, normalisation)
