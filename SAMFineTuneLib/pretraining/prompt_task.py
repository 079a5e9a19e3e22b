"""The prompted task: a structure of each image from a box or a click, then correcting clicks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.pretraining.episode import Episode
from SAMFineTuneLib.prompts.components import random_component
from SAMFineTuneLib.prompts.simulated import first_prompts
from SAMFineTuneLib.random_source import Chance
from SAMFineTuneLib.training.prompt_rounds import loss_of_rounds

# Shares of the image that a structure may fill.
_SMALLEST, _LARGEST = 0.0008, 0.5
# Of a box, as a share of its sides: that of Segment Anything (Kirillov et al. 2023).
_JITTER = 0.1
_BOXED = 0.5
_TRIES = 6


@dataclass(frozen=True)
class Rounds:
    """How often a mask is asked for.

    Attributes:
        learnt: how many answers are learnt from, the first and the last ones.
        passed_over: how many between the first one and the others are not.
    """

    learnt: int
    passed_over: int


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
    """A random connected part of a random label; nothing where none of several is large enough."""
    present = np.unique(labels)
    present = present[present >= 0]
    if not len(present):
        return np.zeros(labels.shape, dtype=bool)
    label = int(present[chance.whole(0, len(present) - 1)])
    mask = labels == label
    # An organ with its core is a structure as much as either is.
    if label in partners and chance.happens(0.5):
        mask |= labels == partners[label]
    return random_component(mask, _SMALLEST, chance)


def prompt_loss(
    segmenter: PromptedSegmenter,
    features: FeatureState,
    masks: Tensor,
    rounds: Rounds,
    chance: Chance,
) -> tuple[Tensor, list[Tensor]]:
    """Loss over rounds of prompts, the first of them a box or a click; see `loss_of_rounds`."""
    batch, size = len(masks), masks.shape[-1]
    boxed = chance.each_between(0, 1, batch) < _BOXED
    prompts = first_prompts(masks, boxed, _JITTER, chance.each_between(0, 1, batch, size, size))
    return loss_of_rounds(
        segmenter, features, masks, prompts, rounds.learnt, chance, rounds.passed_over
    )
