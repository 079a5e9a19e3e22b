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
from SAMFineTuneLib.networks.staged_encoder import FeatureState, chosen
from SAMFineTuneLib.prediction.slice_prediction import embed
from SAMFineTuneLib.prompts.components import largest_component
from SAMFineTuneLib.prompts.mode import PromptMode
from SAMFineTuneLib.prompts.prompt_set import POSITIVE, PromptSet
from SAMFineTuneLib.prompts.simulated import (
    boxes_around,
    correcting_points,
    jittered,
    points_within,
)
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.training.drawn_validation import measure_drawn

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
    target = shown.target
    parts = [largest_component(target == each) for each in sorted(shown.classes)]
    fit = SquareFit(*shown.shape, shown.spacing, segmenter.network.input_size)
    squares = [fit.mask_to_square(torch.from_numpy(part).int()) > 0 for part in parts]
    # A part that is smaller than a pixel of the square cannot be pointed at.
    pairs = [pair for pair in zip(parts, squares, strict=True) if pair[1].any()]
    if not pairs:
        return {}
    device = next(segmenter.parameters()).device
    truth = torch.from_numpy(np.stack([part for part, _ in pairs])).to(device)
    square = torch.stack([each for _, each in pairs]).to(device)
    features = embed(segmenter.network, [shown.image], shown.window, shown.spacing)
    # All structures share the features of the one image.
    features = chosen(features, torch.zeros(len(pairs), dtype=torch.long, device=device))

    def dsc_in_rounds(prompts: PromptSet, rounds: int) -> list[list[float]]:
        answers = islice(_answers(segmenter, features, square, prompts), rounds)
        masks = [fit.logits_to_slice(logits)[:, 0] > 0 for logits in answers]
        return [_dsc(mask, truth).tolist() for mask in masks]

    none = PromptSet.none(len(pairs), device)
    noise = np.random.default_rng(seed).standard_normal((len(pairs), 4))
    boxes = jittered(boxes_around(square), _JITTER, torch.from_numpy(noise).float().to(device))
    points, _ = points_within(square, torch.zeros(square.shape, device=device))
    click = none.with_points(points, torch.full((len(pairs),), POSITIVE, device=device))
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


def _dsc(found: Tensor, true: Tensor) -> Tensor:
    """DSC (B,) of masks (B, rows, columns); no true mask is empty."""
    both = (found & true).sum((1, 2))
    return 2 * both / (found.sum((1, 2)) + true.sum((1, 2)))
