"""Rounds of simulated prompts, each of which corrects the mask of the round before it.

Segment Anything was trained in this way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prompts.prompt_set import PromptSet
from SAMFineTuneLib.prompts.simulated import correcting_points
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.training.mask_loss import mask_loss, thinned

# How much noise is added to the depth by which the place of a click within an error is chosen.
_STRAYING = 0.5


def loss_of_rounds(
    segmenter: PromptedSegmenter,
    features: FeatureState,
    masks: Tensor,
    prompts: PromptSet,
    rounds: int,
    random: RandomSource,
    passed_over: int = 0,
) -> tuple[Tensor, list[Tensor]]:
    """Loss over rounds of prompts: the given ones, then one click more into the largest error.

    Args:
        segmenter: the network.
        features: of B images.
        masks: (B, S, S) bool, the structures, none empty.
        prompts: of the first round.
        rounds: how many of the predicted masks are learnt from.
        random: source of all random numbers.
        passed_over: how many rounds after the first one are predicted without gradients, which
            costs less; after them the network learns from masks that many clicks have corrected.

    Returns:
        The mean loss, and the DSC (B,) of each round that is learnt from.
    """
    batch, size = len(masks), masks.shape[-1]
    losses, scores = [], []
    for turn in range(rounds + passed_over):
        learnt = not 1 <= turn <= passed_over
        with torch.set_grad_enabled(torch.is_grad_enabled() and learnt):
            logits, iou_predictions = segmenter.decode(features, prompts)
        if learnt:
            loss, dsc = mask_loss(logits, iou_predictions, thinned(masks, random))
            losses.append(loss)
            scores.append(dsc)
        if turn == rounds + passed_over - 1:
            break
        previous = logits.detach().float()
        found = functional.interpolate(previous, (size, size), mode="bilinear")[:, 0] > 0
        noise = _STRAYING * random.each_between(0, 1, batch, size, size)
        prompts = prompts.with_mask(previous).with_points(*correcting_points(found, masks, noise))
    return torch.stack(losses).mean(), scores
