"""Measuring a network with the prompts that it is tuned for, where all are given at once.

The prompts are derived from the true masks. So these figures differ in kind from the DSC of
automatic segmentation, and are never mixed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import chosen
from SAMFineTuneLib.prediction.slice_prediction import embed
from SAMFineTuneLib.prompts.mode import DrawnMode
from SAMFineTuneLib.prompts.region_prompts import region_prompts
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.slices.square import SquareFit

ORACLE = "oracle"


def measure_drawn(
    segmenter: PromptedSegmenter,
    slices: Sequence[LabelledSlice],
    mode: DrawnMode,
    check: Callable[[], None] = lambda: None,
    with_oracle: bool = False,
) -> dict[str, float]:
    """Mean DSC over every known structure on every slice, with all its regions.

    Args:
        segmenter: the network; it is in eval mode afterwards.
        slices: the slices; only labelled ones are measured.
        mode: which prompts are drawn; the same ones at every call.
        check: called between slices; may raise to stop.
        with_oracle: whether to measure the oracle too.

    Returns:
        The mean DSC under the mode's name. "oracle": of all masks that the network gives for a
        prompt, the one that is most like the true mask, which nobody knows who has to choose; left
        out for a network with a single mask. Empty where no slice shows a structure.
    """
    segmenter.eval()
    found: dict[str, list[float]] = {}
    for number, each in enumerate(slices):
        check()
        for name, scores in _scores_on(segmenter, each, mode, number, with_oracle).items():
            found.setdefault(name, []).extend(scores)
    return {name: float(np.mean(scores)) for name, scores in found.items()}


@torch.inference_mode()
def _scores_on(
    segmenter: PromptedSegmenter, shown: LabelledSlice, mode: DrawnMode, seed: int, oracle: bool
) -> dict[str, list[float]]:
    fit = SquareFit(*shown.shape, shown.spacing, segmenter.network.input_size)
    structures = [torch.from_numpy(shown.target == each) for each in sorted(shown.classes)]
    squares = [fit.mask_to_square(each.int()) > 0 for each in structures]
    # A structure that is smaller than a pixel of the square cannot be pointed at.
    pairs = [pair for pair in zip(structures, squares, strict=True) if pair[1].any()]
    if not pairs:
        return {}
    device = next(segmenter.parameters()).device
    truth = torch.stack([each for each, _ in pairs]).to(device)
    square = torch.stack([each for _, each in pairs]).to(device)
    features = embed(segmenter.network, [shown.image], shown.window, shown.spacing)
    # All structures share the features of the one image.
    features = chosen(features, torch.zeros(len(pairs), dtype=torch.long, device=device))
    drawn = region_prompts(square, RandomSource((7, seed), device), mode)
    with autocast(device):
        every = segmenter.decode_all(features, drawn.prompts)[0]
    dsc = _dsc(fit, every, truth)
    scores: dict[str, list[float]] = {mode: dsc[:, 0].tolist()}
    if oracle and every.shape[1] > 1:
        scores[ORACLE] = dsc.amax(1).tolist()
    return scores


def _dsc(fit: SquareFit, logits: Tensor, true: Tensor) -> Tensor:
    """DSC (B, masks) of logits (B, masks, s, s) with masks (B, rows, columns), none empty."""
    found = fit.logits_to_slice(logits.float()) > 0
    both = (found & true[:, None]).sum((2, 3))
    return 2 * both / (found.sum((2, 3)) + true.sum((1, 2))[:, None])
