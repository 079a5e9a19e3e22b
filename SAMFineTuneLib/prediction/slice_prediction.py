"""Slices to class probabilities on their own pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.heads.class_mask_decoder import AutomaticSegmenter
from SAMFineTuneLib.slices.intensity import IntensityWindow
from SAMFineTuneLib.slices.pixels import network_pixels
from SAMFineTuneLib.slices.square import SquareFit


@torch.inference_mode()
def class_probabilities(
    segmenter: AutomaticSegmenter,
    images: list[np.ndarray],
    window: IntensityWindow,
    spacing: tuple[float, float],
) -> Tensor:
    """Class probabilities of a batch of slices of one volume.

    Args:
        segmenter: the tuned network, in eval mode.
        images: slices (rows, columns), 0 to 1 in the volume's window.
        window: the volume's intensity window.
        spacing: mm between rows and between columns.

    Returns:
        (B, classes, rows, columns) on the network's device, background first.
    """
    network = segmenter.network
    device = next(network.parameters()).device
    fit = SquareFit(*images[0].shape, spacing, network.input_size)
    pixels = torch.stack(
        [
            network_pixels(
                fit.image_to_square(torch.from_numpy(image).float()),
                window,
                network.spec.normalisation,
            )
            for image in images
        ]
    ).to(device)
    with autocast(device):
        logits, _ = segmenter(pixels)
    return fit.logits_to_slice(logits.float()).softmax(1)
