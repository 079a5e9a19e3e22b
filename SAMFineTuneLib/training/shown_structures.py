"""The structures of a held-out slice, as a network is shown them to be measured with prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState, chosen
from SAMFineTuneLib.prediction.slice_prediction import embed
from SAMFineTuneLib.slices.square import SquareFit


class ShownStructures(NamedTuple):
    """B structures of one slice, with the features of its image.

    Attributes:
        fit: from the slice to the square.
        truth: (B, rows, columns) bool, the true masks.
        square: (B, S, S) bool, the same on the square, none empty.
        features: of the image, once for each structure.
    """

    fit: SquareFit
    truth: Tensor
    square: Tensor
    features: FeatureState

    def dsc(self, logits: Tensor) -> Tensor:
        """DSC (B, masks) of mask logits (B, masks, s, s) with the true masks, on the slice."""
        found = self.fit.logits_to_slice(logits.float()) > 0
        both = (found & self.truth[:, None]).sum((2, 3))
        return 2 * both / (found.sum((2, 3)) + self.truth.sum((1, 2))[:, None])


def shown_structures(
    segmenter: PromptedSegmenter, shown: LabelledSlice, masks: Sequence[NDArray[np.bool_]]
) -> ShownStructures | None:
    """The masks of a slice, and the features of its image.

    Args:
        segmenter: the network, on its device.
        shown: the slice.
        masks: of its structures, (rows, columns). One that is smaller than a pixel of the square
            is left out, because nothing can be pointed at there.

    Returns:
        The structures; None where none is left.
    """
    fit = SquareFit(*shown.shape, shown.spacing, segmenter.network.input_size)
    squares = [fit.mask_to_square(torch.from_numpy(mask).int()) > 0 for mask in masks]
    pairs = [pair for pair in zip(masks, squares, strict=True) if pair[1].any()]
    if not pairs:
        return None
    device = next(segmenter.parameters()).device
    features = embed(segmenter.network, [shown.image], shown.window, shown.spacing)
    return ShownStructures(
        fit,
        torch.from_numpy(np.stack([mask for mask, _ in pairs])).to(device),
        torch.stack([square for _, square in pairs]).to(device),
        chosen(features, torch.zeros(len(pairs), dtype=torch.long, device=device)),
    )
