"""Measuring a network with the prompts that it is tuned for, where all are given at once.

The prompts are derived from the true masks. So these figures differ in kind from the DSC of
automatic segmentation, and are never mixed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.prompts.mode import DrawnMode
from SAMFineTuneLib.prompts.region_prompts import region_prompts
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.training.shown_structures import shown_structures

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
    structures = [shown.target == each for each in sorted(shown.classes)]
    asked = shown_structures(segmenter, shown, structures)
    if asked is None:
        return {}
    device = asked.square.device
    drawn = region_prompts(asked.square, RandomSource((7, seed), device), mode)
    with autocast(device):
        logits, _ = segmenter.decode_all(asked.features, drawn.prompts)
    dsc = asked.dsc(logits)
    scores: dict[str, list[float]] = {mode: dsc[:, 0].tolist()}
    if oracle and logits.shape[1] > 1:
        scores[ORACLE] = dsc.amax(1).tolist()
    return scores
