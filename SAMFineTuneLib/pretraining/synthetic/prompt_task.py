"""The prompted task: segmenting a structure of each image from a box or clicks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.pretraining.synthetic.episode import Episode
from SAMFineTuneLib.prompts.components import random_component
from SAMFineTuneLib.prompts.simulated import first_prompts
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.training.prompt_rounds import loss_of_rounds

# Smallest and largest share of the image that a structure may fill.
_SMALLEST, _LARGEST = 0.0008, 0.5
# Jitter of a box as a share of its sides, as in Segment Anything (Kirillov et al. 2023).
_JITTER = 0.1
# Share of boxes among the first prompts.
_BOXED = 0.5
# Number of random structures, at most, of which one of a fitting size is looked for.
_TRIES = 6


@dataclass(frozen=True)
class Rounds:
    """How many rounds of prompts there are; see `loss_of_rounds`.

    Attributes:
        learnt: number of rounds that are learnt from, the first one and the last ones.
        passed_over: number of rounds between these that are not learnt from.
    """

    learnt: int
    passed_over: int


def choose_masks(episodes: list[Episode], random: RandomSource) -> Tensor:
    """One connected structure in every image, (B, S, S) bool; all false where none was found."""
    masks = [_choose_in(episode, random) for episode in episodes]
    return torch.cat(masks)


def _choose_in(episode: Episode, random: RandomSource) -> Tensor:
    # Components are found on the CPU whatever the device is.
    labels = episode.labels.cpu().numpy()
    partners = dict(episode.pairs)
    chosen = np.zeros(labels.shape, dtype=bool)
    for number, each in enumerate(labels):
        for _ in range(_TRIES):
            mask = _component(each, partners, random)
            if _SMALLEST < mask.mean() < _LARGEST:
                chosen[number] = mask
                break
    return torch.from_numpy(chosen).to(episode.labels.device)


def _component(labels: np.ndarray, partners: dict[int, int], random: RandomSource) -> np.ndarray:
    """A random connected part of a random label; empty where all of several parts are too small."""
    present = np.unique(labels)
    present = present[present >= 0]
    if not len(present):
        return np.zeros(labels.shape, dtype=bool)
    label = int(present[random.whole(0, len(present) - 1)])
    mask = labels == label
    # An organ together with its core is a structure, too.
    if label in partners and random.happens(0.5):
        mask |= labels == partners[label]
    return random_component(mask, _SMALLEST, random)


def prompt_loss(
    segmenter: PromptedSegmenter,
    features: FeatureState,
    masks: Tensor,
    rounds: Rounds,
    random: RandomSource,
) -> tuple[Tensor, list[Tensor]]:
    """Loss over rounds of prompts, the first of them a box or a click; see `loss_of_rounds`."""
    batch, size = len(masks), masks.shape[-1]
    boxed = random.each_between(0, 1, batch) < _BOXED
    prompts = first_prompts(masks, boxed, _JITTER, random.each_between(0, 1, batch, size, size))
    return loss_of_rounds(
        segmenter, features, masks, prompts, rounds.learnt, random, rounds.passed_over
    )
