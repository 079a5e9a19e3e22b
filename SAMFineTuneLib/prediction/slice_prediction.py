"""Predicting class probabilities of slices, on the pixels of the slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.slices.intensity import PixelWindow
from SAMFineTuneLib.slices.pixels import channels_first, network_pixels
from SAMFineTuneLib.slices.square import SquareFit


@torch.inference_mode()
def class_probabilities(
    segmenter: AutomaticSegmenter,
    images: Sequence[np.ndarray],
    window: PixelWindow,
    spacing: tuple[float, float],
) -> Tensor:
    """Class probabilities of a batch of slices of one volume, as the network gives them.

    A card's temperature is not in them; see `prediction.uncertainty.at_temperature`.

    Args:
        segmenter: the tuned network, in eval mode.
        images: slices (rows, columns) or (rows, columns, channels), 0 to 1 in the volume's window.
        window: the volume's intensity window.
        spacing: mm between rows and between columns.

    Returns:
        (B, classes, rows, columns) on the network's device, background first.
    """
    state = embed(segmenter.network, images, window, spacing)
    return probabilities_from(segmenter, state, images[0].shape, spacing)


@torch.inference_mode()
def embed(
    network: SamNetwork,
    images: Sequence[np.ndarray],
    window: PixelWindow,
    spacing: tuple[float, float],
    stages: int | None = None,
) -> FeatureState:
    """The image encoder's features of slices; with `stages`, those after so many first stages."""
    device = next(network.parameters()).device
    rows, columns = images[0].shape[:2]
    fit = SquareFit(rows, columns, spacing, network.input_size)
    normalisation = network.spec.normalisation
    squares = [fit.image_to_square(channels_first(image)) for image in images]
    pixels = torch.stack([network_pixels(each, window, normalisation) for each in squares])
    encoder = network.image_encoder
    stop = len(encoder.stages()) if stages is None else stages
    with autocast(device):
        return encoder.run(FeatureState(pixels.to(device)), 0, stop)


@torch.inference_mode()
def probabilities_from(
    segmenter: AutomaticSegmenter,
    state: FeatureState,
    shape: tuple[int, ...],
    spacing: tuple[float, float],
    stages_done: int | None = None,
) -> Tensor:
    """Class probabilities from features of `embed`, computed with the same number of stages."""
    network = segmenter.network
    encoder = network.image_encoder
    count = len(encoder.stages())
    with autocast(state.x.device):
        features = encoder.run(state, count if stages_done is None else stages_done, count)
        logits, _ = segmenter.decode(features)
    fit = SquareFit(shape[0], shape[1], spacing, network.input_size)
    return fit.logits_to_slice(logits.float()).softmax(1)
