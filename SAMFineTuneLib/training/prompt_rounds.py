"""Rounds of simulated prompts, each correcting the mask of the one before, as SAM was trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prompts.prompt_set import PromptSet
from SAMFineTuneLib.prompts.simulated import correcting_points
from SAMFineTuneLib.random_source import Chance
from SAMFineTuneLib.training.mask_loss import mask_loss, thinned

# How far a click strays among the deep places of an error.
_STRAYING = 0.5


def loss_of_rounds(
    segmenter: PromptedSegmenter,
    features: FeatureState,
    masks: Tensor,
    prompts: PromptSet,
    rounds: int,
    chance: Chance,
    passed_over: int = 0,
) -> tuple[Tensor, list[Tensor]]:
    """Loss over rounds of prompts: those given, then a click into the largest error at a time.

    Args:
        segmenter: the network.
        features: of B images.
        masks: (B, S, S) bool, the structures, none empty.
        prompts: of the first round.
        rounds: how many answers are learnt from.
        chance: everything random.
        passed_over: answers behind the first that are not learnt from, and cost less; they lead
            to what many clicks leave.

    Returns:
        The mean loss, and the DSC (B,) after each round that is learnt from.
    """
    batch, size = len(masks), masks.shape[-1]
    losses, scores = [], []
    for turn in range(rounds + passed_over):
        learnt = not 1 <= turn <= passed_over
        with torch.set_grad_enabled(torch.is_grad_enabled() and learnt):
            logits, overlaps = segmenter.decode(features, prompts)
        if learnt:
            loss, dsc = mask_loss(logits, overlaps, thinned(masks, chance))
            losses.append(loss)
            scores.append(dsc)
        if turn == rounds + passed_over - 1:
            break
        previous = logits.detach().float()
        found = functional.interpolate(previous, (size, size), mode="bilinear")[:, 0] > 0
        noise = _STRAYING * chance.each_between(0, 1, batch, size, size)
        prompts = prompts.with_mask(previous).with_points(*correcting_points(found, masks, noise))
    return torch.stack(losses).mean(), scores
