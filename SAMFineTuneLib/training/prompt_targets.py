"""What the simulated user segments on a slice, and the prompts of the first round."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.prompts.components import random_component
from SAMFineTuneLib.prompts.corrupted_masks import corrupted_masks
from SAMFineTuneLib.prompts.prompt_maps import STRIDE
from SAMFineTuneLib.prompts.prompt_set import PADDING, PromptSet
from SAMFineTuneLib.prompts.simulated import (
    boxes_around,
    correcting_points,
    first_prompts,
    jittered,
)
from SAMFineTuneLib.random_source import RandomSource

# Share of slices on which one connected part of a structure is segmented, not the whole structure.
_ONE_PART = 0.8
# Share of the image that a part must exceed where a structure has several parts.
_SMALLEST = 0.0003
# Share of boxes among the first prompts where there is no mask yet, and the jitter of their sides,
# which is that of the published study.
_BOXED = 0.5
_JITTER = 0.1
# Where there is a mask already: share of masks with a click into the error, and share with a box.
# The other masks come without a prompt, and the network corrects them from the image alone.
_CLICKED, _BOXED_OVER_MASK = 0.5, 0.2


def choose_structures(
    target: Tensor, known: Tensor, random: RandomSource, one_part: float = _ONE_PART
) -> Tensor:
    """A random structure of each slice, (B, S, S) bool; all false where the slice shows none.

    Args:
        target: (B, S, S) class numbers.
        known: (B, classes) bool, background first.
        random: chooses the structure, and the part of it.
        one_part: how often a single connected part of the structure is taken.
    """
    # Components are found on the CPU whatever the device is.
    numbers, known_classes = target.cpu().numpy(), known.cpu().numpy()
    chosen = [
        _structure(*each, random, one_part) for each in zip(numbers, known_classes, strict=True)
    ]
    return torch.from_numpy(np.stack(chosen)).to(target.device)


def _structure(
    target: np.ndarray, known: np.ndarray, random: RandomSource, one_part: float
) -> np.ndarray:
    present = [each for each in np.unique(target) if each > 0 and known[each]]
    if not present:
        return np.zeros(target.shape, dtype=bool)
    mask: np.ndarray = target == present[random.whole(0, len(present) - 1)]
    if random.happens(one_part):
        part = random_component(mask, _SMALLEST, random)
        return part if part.any() else mask
    return mask


def prompts_on_nothing(masks: Tensor, random: RandomSource) -> PromptSet:
    """A jittered box or a click for each of the masks (B, S, S), where there is no mask yet."""
    boxed = random.each_between(0, 1, len(masks)) < _BOXED
    return first_prompts(masks, boxed, _JITTER, random.each_between(0, 1, *masks.shape))


def prompts_on_corrupted_masks(
    masks: Tensor, random: RandomSource, stride: int = STRIDE
) -> PromptSet:
    """For each mask (B, S, S) a corrupted one, and a click, a box or nothing to correct it.

    Args:
        masks: none empty.
        random: source of all random numbers.
        stride: of the backbone's masks.
    """
    corrupted = corrupted_masks(masks, random, stride)
    found = functional.interpolate(corrupted, masks.shape[-2:], mode="bilinear")[:, 0] > 0
    kind = random.each_between(0, 1, len(masks))
    points, labels = correcting_points(found, masks, 0.5 * random.each_between(0, 1, *masks.shape))
    labels = torch.where(kind < _CLICKED, labels, PADDING)
    boxes = jittered(boxes_around(masks), _JITTER, random.normal(len(masks), 4))
    boxed = (kind >= _CLICKED) & (kind < _CLICKED + _BOXED_OVER_MASK)
    boxes = torch.where(boxed[:, None], boxes, torch.nan)
    return PromptSet(points[:, None], labels[:, None], boxes, corrupted)
