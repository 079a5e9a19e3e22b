"""What the labelled slices say of their classes, as a starter network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import FeatureState, joined
from SAMFineTuneLib.networks.starter.context_decoder import ClassContext, ContextMaskDecoder
from SAMFineTuneLib.slices.pixels import network_pixels
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.training.training_set import LabelledSlice

# Averages do not gain by more.
_SLICES_OF_CLASS = 12


@torch.no_grad()
def context_of_slices(
    network: SamNetwork, slices: Sequence[LabelledSlice], classes: int
) -> ClassContext | None:
    """The context of a task; None for a backbone whose decoder takes none.

    Args:
        network: with the decoders that it was built with, on its device.
        slices: what is labelled; of a data set, some of them are looked at.
        classes: background included.
    """
    decoder = network.context_decoder
    if not isinstance(decoder, ContextMaskDecoder):
        return None
    chosen = [slices[number] for number in _spread_over_classes(slices, classes)]
    device = next(network.parameters()).device
    features, masks = [], []
    for each in chosen:
        rows, columns = each.image.shape
        fit = SquareFit(rows, columns, each.spacing, network.input_size)
        image = fit.image_to_square(torch.from_numpy(each.image).float())
        pixels = network_pixels(image, each.window, network.spec.normalisation)[None]
        with autocast(device):
            features.append(network.image_encoder(pixels.to(device)))
        target = fit.mask_to_square(torch.from_numpy(each.target))
        masks.append(_class_masks(target, each.known))
    _forget_doubtful_background(masks, [each.known for each in chosen])
    state: FeatureState = joined(features, device)
    prompts: Any = network.prompt_encoder
    positions = prompts.pe_layer(state.x.shape[-2:])[None]
    return decoder.form_context(state, positions, torch.stack(masks).to(device))


def _spread_over_classes(slices: Sequence[LabelledSlice], classes: int) -> list[int]:
    """Some slices of each class, and of those that are empty, evenly spread."""
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
    """(K, S, S) shares; a class that is unknown in the slice has none."""
    numbers = torch.arange(len(known))[:, None, None]
    return (target[None] == numbers).float() * torch.from_numpy(known)[:, None, None]


def _forget_doubtful_background(masks: list[Tensor], known: list[np.ndarray]) -> None:
    """Where classes are unknown, what looks like background may be one of them.

    Only the slices that tell of the most classes say what background is.
    """
    told = [int(each.sum()) for each in known]
    for mask, count in zip(masks, told, strict=True):
        if count < max(told):
            mask[0] = 0
