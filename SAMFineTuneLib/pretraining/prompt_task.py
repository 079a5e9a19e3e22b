"""The prompted task: a structure of each image from a box or a click, then correcting clicks."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.backbones.staged_encoder import FeatureState
from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.pretraining.episode import Episode
from SAMFineTuneLib.pretraining.mask_loss import mask_loss, thinned
from SAMFineTuneLib.pretraining.smooth_noise import Chance
from SAMFineTuneLib.prompts.simulated import correcting_points, first_prompts

# Shares of the image that a structure may fill.
_SMALLEST, _LARGEST = 0.0008, 0.5
_JITTER = 0.06
_BOXED = 0.5
_TRIES = 6


def choose_masks(episodes: list[Episode], chance: Chance) -> Tensor:
    """One connected structure in every image, (B, S, S) bool; all false where none was found."""
    masks = [_choose_in(episode, chance) for episode in episodes]
    return torch.cat(masks)


def _choose_in(episode: Episode, chance: Chance) -> Tensor:
    # Components are found on the CPU whatever the device is.
    labels = episode.labels.cpu().numpy()
    partners = dict(episode.pairs)
    chosen = np.zeros(labels.shape, dtype=bool)
    for number, each in enumerate(labels):
        for _ in range(_TRIES):
            mask = _component(each, partners, chance)
            if _SMALLEST < mask.mean() < _LARGEST:
                chosen[number] = mask
                break
    return torch.from_numpy(chosen).to(episode.labels.device)


def _component(labels: np.ndarray, partners: dict[int, int], chance: Chance) -> np.ndarray:
    """A random connected part of a random label; several where none is large enough by itself."""
    present = np.unique(labels)
    present = present[present >= 0]
    if not len(present):
        return np.zeros(labels.shape, dtype=bool)
    label = int(present[chance.whole(0, len(present) - 1)])
    mask = labels == label
    # An organ with its core is a structure as much as either is.
    if label in partners and chance.happens(0.5):
        mask |= labels == partners[label]
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())[1:]
    fitting = np.flatnonzero(sizes > _SMALLEST * labels.size)
    if not len(fitting):
        return np.zeros_like(mask)
    part: np.ndarray = parts == fitting[chance.whole(0, len(fitting) - 1)] + 1
    return part


def prompt_loss(
    segmenter: PromptedSegmenter,
    features: FeatureState,
    masks: Tensor,
    rounds: int,
    chance: Chance,
) -> tuple[Tensor, list[Tensor]]:
    """Loss over rounds of prompts, each correcting the mask of the one before.

    Args:
        segmenter: the network.
        features: of B images.
        masks: (B, S, S) bool, the structures, none empty.
        rounds: how many times prompts are given.
        chance: everything random.

    Returns:
        The mean loss, and the DSC (B,) after each round.
    """
    batch, size = len(masks), masks.shape[-1]
    boxed = chance.each_between(0, 1, batch) < _BOXED
    prompts = first_prompts(masks, boxed, _JITTER, chance.each_between(0, 1, batch, size, size))
    losses, scores = [], []
    for turn in range(rounds):
        logits, overlaps = segmenter.decode(features, prompts)
        loss, dsc = mask_loss(logits, overlaps, thinned(masks, chance))
        losses.append(loss)
        scores.append(dsc)
        if turn == rounds - 1:
            break
        previous = logits.detach().float()
        found = functional.interpolate(previous, (size, size), mode="bilinear")[:, 0] > 0
        noise = 0.5 * chance.each_between(0, 1, batch, size, size)
        prompts = prompts.with_mask(previous).with_points(*correcting_points(found, masks, noise))
    return torch.stack(losses).mean(), scores
