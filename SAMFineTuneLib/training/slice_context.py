"""The context of a task: what a starter network takes from labelled slices about their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState, joined
from SAMFineTuneLib.networks.starter.context_decoder import ClassContext, ContextMaskDecoder
from SAMFineTuneLib.slices.pixels import channels_first, network_pixels
from SAMFineTuneLib.slices.square import SquareFit

# More slices of a class do not improve the averages.
_SLICES_OF_CLASS = 12


@torch.no_grad()
def context_of_slices(
    network: SamNetwork, slices: Sequence[LabelledSlice], classes: int
) -> ClassContext | None:
    """The context of a task; None for a backbone whose decoder does not use one.

    Args:
        network: with its original decoders, on its device.
        slices: the labelled and empty slices; of many, an evenly spread selection is used.
        classes: background included.
    """
    decoder = network.context_decoder
    if not isinstance(decoder, ContextMaskDecoder):
        return None
    device = next(network.parameters()).device
    features, masks = embedded_slices(network, slices, classes)
    state: FeatureState = joined(features, device)
    prompts: Any = network.prompt_encoder
    positions = prompts.pe_layer(state.x.shape[-2:])[None]
    return decoder.form_context(state, positions, torch.stack(masks).to(device))


@torch.no_grad()
def embedded_slices(
    network: SamNetwork, slices: Sequence[LabelledSlice], classes: int
) -> tuple[list[FeatureState], list[Tensor]]:
    """Some slices of each class, embedded one by one, and where each class is known to be.

    Args:
        network: on its device.
        slices: the labelled and empty slices; of many, an evenly spread selection is used.
        classes: background included.

    Returns:
        What the encoder gives for each slice; and masks (classes, S, S) of each on the CPU. Pixels
        of which it is not known what they show are in no mask.
    """
    chosen = [slices[number] for number in _spread_over_classes(slices, classes)]
    device = next(network.parameters()).device
    features, masks = [], []
    for each in chosen:
        fit = SquareFit(*each.shape, each.spacing, network.input_size)
        image = fit.image_to_square(channels_first(each.image))
        pixels = network_pixels(image, each.window, network.spec.normalisation)[None]
        with autocast(device):
            features.append(network.image_encoder(pixels.to(device)))
        target = fit.mask_to_square(torch.from_numpy(each.target))
        masks.append(_class_masks(target, each.known))
    _remove_uncertain_background(masks, [each.known for each in chosen])
    return features, masks


def _spread_over_classes(slices: Sequence[LabelledSlice], classes: int) -> list[int]:
    """Positions of some slices of each class and of some empty ones, evenly spread."""
    chosen: set[int] = set()
    for wanted in range(classes):
        shown = [
            number
            for number, each in enumerate(slices)
            if (wanted in each.classes if wanted else not each.classes)
        ]
        spread = np.linspace(0, len(shown) - 1, min(len(shown), _SLICES_OF_CLASS)).round()
        chosen.update(shown[int(position)] for position in spread)
    return sorted(chosen)


def _class_masks(target: Tensor, known: np.ndarray) -> Tensor:
    """(classes, S, S) masks of each class; empty for a class that is unknown on the slice."""
    numbers = torch.arange(len(known))[:, None, None]
    return (target[None] == numbers).float() * torch.from_numpy(known)[:, None, None]


def _remove_uncertain_background(masks: list[Tensor], known: list[np.ndarray]) -> None:
    """Takes background from those slices only on which the most classes are known.

    On the others, pixels that are background in the labelmap may belong to an unknown class.
    """
    counts = [int(each.sum()) for each in known]
    for mask, count in zip(masks, counts, strict=True):
        if count < max(counts):
            mask[0] = 0
