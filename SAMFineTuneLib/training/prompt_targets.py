"""What the simulated user wants of a slice, and what is there at the start."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.prompts.components import random_component
from SAMFineTuneLib.prompts.corrupted_masks import wrong_masks
from SAMFineTuneLib.prompts.prompt_set import PADDING, PromptSet
from SAMFineTuneLib.prompts.simulated import (
    boxes_around,
    correcting_points,
    first_prompts,
    jittered,
)
from SAMFineTuneLib.random_source import Chance

# How often one connected part is wanted, and not all of a structure.
_ONE_PART = 0.8
# Share of the image that a part exceeds where a structure has several.
_SMALLEST = 0.0003
# Of the first prompts on an empty slice those that are boxes; the study's jitter of their sides.
_BOXED = 0.5
_JITTER = 0.1
# Where there is a mask already: shares of a click into its error, and of a box. The others are
# masks alone, which the network corrects from what it sees.
_CLICKED, _BOXED_OVER_MASK = 0.5, 0.2


def choose_structures(target: Tensor, known: Tensor, chance: Chance) -> Tensor:
    """A random structure of each slice, (B, S, S) bool; all false where none is to be seen.

    Args:
        target: (B, S, S) class numbers.
        known: (B, classes) bool, background first.
        chance: which structure, and which part of it.
    """
    # Components are found on the CPU whatever the device is.
    numbers, told = target.cpu().numpy(), known.cpu().numpy()
    chosen = [_structure(*each, chance) for each in zip(numbers, told, strict=True)]
    return torch.from_numpy(np.stack(chosen)).to(target.device)


def _structure(target: np.ndarray, known: np.ndarray, chance: Chance) -> np.ndarray:
    present = [each for each in np.unique(target) if each > 0 and known[each]]
    if not present:
        return np.zeros(target.shape, dtype=bool)
    mask: np.ndarray = target == present[chance.whole(0, len(present) - 1)]
    if chance.happens(_ONE_PART):
        part = random_component(mask, _SMALLEST, chance)
        return part if part.any() else mask
    return mask


def prompts_on_nothing(masks: Tensor, chance: Chance) -> PromptSet:
    """A jittered box or a click for each of the masks (B, S, S), where there is no mask yet."""
    boxed = chance.each_between(0, 1, len(masks)) < _BOXED
    return first_prompts(masks, boxed, _JITTER, chance.each_between(0, 1, *masks.shape))


def prompts_on_wrong_masks(masks: Tensor, chance: Chance) -> PromptSet:
    """A wrong mask for each of the masks (B, S, S), and a click, a box or nothing to correct it."""
    wrong = wrong_masks(masks, chance)
    found = functional.interpolate(wrong, masks.shape[-2:], mode="bilinear")[:, 0] > 0
    kind = chance.each_between(0, 1, len(masks))
    points, labels = correcting_points(found, masks, 0.5 * chance.each_between(0, 1, *masks.shape))
    labels = torch.where(kind < _CLICKED, labels, PADDING)
    boxes = jittered(boxes_around(masks), _JITTER, chance.normal(len(masks), 4))
    boxed = (kind >= _CLICKED) & (kind < _CLICKED + _BOXED_OVER_MASK)
    boxes = torch.where(boxed[:, None], boxes, torch.nan)
    return PromptSet(points[:, None], labels[:, None], boxes, wrong)
