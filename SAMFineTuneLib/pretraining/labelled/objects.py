"""A random object of a slice: one of its structures, with all its regions, on the square."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.networks.spec import PixelNormalisation
from SAMFineTuneLib.pretraining.labelled.data_sets import LearntSlice
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.slices.pixels import channels_first, network_pixels
from SAMFineTuneLib.slices.square import SquareFit


class ObjectOnSquare(NamedTuple):
    """An object with its image.

    Attributes:
        image: (3, S, S) normalised.
        mask: (S, S) bool; empty where augmentation moved the object out of the square.
    """

    image: Tensor
    mask: Tensor


def augmented_object(
    learnt: LearntSlice, size: int, pixels: PixelNormalisation, random: RandomSource
) -> ObjectOnSquare:
    """A random object of an augmented slice."""
    draw = random.whole(0, 2**31)
    moved = learnt.augmentation.positions(draw)
    fit = _fit(learnt.labelled, size)
    image = fit.image_to_square(channels_first(learnt.labelled.image), moved)
    image = learnt.augmentation.intensity(image, draw)
    mask = fit.mask_to_square(_object(learnt.labelled, random), moved) > 0
    return ObjectOnSquare(network_pixels(image, learnt.labelled.window, pixels), mask)


def plain_object(
    labelled: LabelledSlice, size: int, pixels: PixelNormalisation, random: RandomSource
) -> ObjectOnSquare:
    """A random object of a slice as it is."""
    fit = _fit(labelled, size)
    image = fit.image_to_square(channels_first(labelled.image))
    mask = fit.mask_to_square(_object(labelled, random)) > 0
    return ObjectOnSquare(network_pixels(image, labelled.window, pixels), mask)


def _fit(labelled: LabelledSlice, size: int) -> SquareFit:
    return SquareFit(*labelled.shape, labelled.spacing, size)


def _object(labelled: LabelledSlice, random: RandomSource) -> Tensor:
    """The mask (rows, columns) of a random structure."""
    classes = sorted(labelled.classes)
    chosen = classes[random.whole(0, len(classes) - 1)]
    return torch.from_numpy(np.ascontiguousarray(labelled.target == chosen)).int()
