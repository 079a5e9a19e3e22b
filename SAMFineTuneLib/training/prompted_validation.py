"""Measuring a network with simulated prompts on slices that it has not learnt from.

The prompts are derived from the true masks. So these figures differ in kind from the DSC of
automatic segmentation, and are never mixed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.device import autocast
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prompts.components import largest_component
from SAMFineTuneLib.prompts.mode import PromptMode
from SAMFineTuneLib.prompts.prompt_set import POSITIVE, PromptSet
from SAMFineTuneLib.prompts.simulated import (
    boxes_around,
    correcting_points,
    jittered,
    points_within,
)
from SAMFineTuneLib.training.drawn_validation import measure_drawn
from SAMFineTuneLib.training.shown_structures import shown_structures

_CLICKS = 3
# Standard deviation of the displacement of a box's sides, as a share of its width and height, as in
# the training of the published study.
_JITTER = 0.1


def measure_prompted(
    segmenter: PromptedSegmenter,
    slices: Sequence[LabelledSlice],
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Mean DSC over the largest connected part of every known structure on every slice.

    Args:
        segmenter: the network; it is in eval mode afterwards.
        slices: the slices; only labelled ones are measured.
        check: called between slices; may raise to stop.

    Returns:
        The mean DSC by prompt. "box": a jittered box. "1 click": a click in the middle of the
        structure. "3 clicks": two clicks more, each in the middle of the largest error. Empty
        where no slice shows a structure.
    """
    segmenter.eval()
    found: dict[str, list[float]] = {}
    for number, each in enumerate(slices):
        check()
        for name, scores in _scores_on(segmenter, each, number).items():
            found.setdefault(name, []).extend(scores)
    return {name: float(np.mean(scores)) for name, scores in found.items()}


def measure_with_prompts(
    segmenter: PromptedSegmenter,
    slices: Sequence[LabelledSlice],
    mode: PromptMode,
    check: Callable[[], None] = lambda: None,
    with_oracle: bool = False,
) -> dict[str, float]:
    """Mean DSC by prompt, with the prompts that the network is tuned for.

    See `measure_prompted`, and `measure_drawn` for the study's prompts, which can be measured with
    the oracle.
    """
    if mode == "correction":
        return measure_prompted(segmenter, slices, check)
    return measure_drawn(segmenter, slices, mode, check, with_oracle)


@torch.inference_mode()
def _scores_on(
    segmenter: PromptedSegmenter, shown: LabelledSlice, seed: int
) -> dict[str, list[float]]:
    parts = [largest_component(shown.target == each) for each in sorted(shown.classes)]
    asked = shown_structures(segmenter, shown, parts)
    if asked is None:
        return {}
    square, count = asked.square, len(asked.square)
    device = square.device

    def dsc_in_rounds(prompts: PromptSet, rounds: int) -> list[list[float]]:
        answers = islice(_answers(segmenter, asked.features, square, prompts), rounds)
        return [asked.dsc(logits)[:, 0].tolist() for logits in answers]

    none = PromptSet.none(count, device)
    noise = np.random.default_rng(seed).standard_normal((count, 4))
    boxes = jittered(boxes_around(square), _JITTER, torch.from_numpy(noise).float().to(device))
    points, _ = points_within(square, torch.zeros(square.shape, device=device))
    click = none.with_points(points, torch.full((count,), POSITIVE, device=device))
    clicks = dsc_in_rounds(click, _CLICKS)
    return {
        "box": dsc_in_rounds(PromptSet(none.points, none.labels, boxes), 1)[0],
        "1 click": clicks[0],
        f"{_CLICKS} clicks": clicks[-1],
    }


def _answers(
    segmenter: PromptedSegmenter, features: FeatureState, true: Tensor, prompts: PromptSet
) -> Iterator[Tensor]:
    """Logits (B, 1, s, s) after the prompts, then after each further correcting click."""
    nowhere = torch.zeros(true.shape, device=true.device)
    while True:
        with autocast(true.device):
            logits = segmenter.decode(features, prompts)[0]
        logits = logits.float()
        yield logits
        found = functional.interpolate(logits, true.shape[-2:], mode="bilinear")[:, 0] > 0
        click = correcting_points(found, true, nowhere)
        prompts = prompts.with_mask(logits).with_points(*click)
