"""Simulated prompts: what a user might click, derived from the true mask.

They serve training and measurement, and are never used for a result that is called automatic. The
first prompt is a jittered box or a point well inside the structure. Each further point lies in the
middle of the largest error of the previous mask; Segment Anything was trained in this way, and
interactive segmentation is measured in this way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.prompts.prompt_set import NEGATIVE, PADDING, POSITIVE, PromptSet

# Half-widths, as shares of the side, of the windows whose filling measures the depth of a pixel.
_DEPTHS = (0.01, 0.03, 0.08, 0.2)


def boxes_around(masks: Tensor) -> Tensor:
    """Tight boxes (B, 4) in pixels, edge to edge, of masks (B, H, W); NaN for an empty mask."""
    rows, columns = masks.any(2), masks.any(1)
    height, width = masks.shape[-2:]
    top, left = rows.float().argmax(1), columns.float().argmax(1)
    bottom = height - rows.flip(1).float().argmax(1)
    right = width - columns.flip(1).float().argmax(1)
    boxes = torch.stack([left, top, right, bottom], dim=1).float()
    boxes[~masks.flatten(1).any(1)] = torch.nan
    return boxes


def jittered(boxes: Tensor, share: float, noise: Tensor, largest: float = 20.0) -> Tensor:
    """Boxes whose sides are moved by a share of the box's size, at most `largest` pixels.

    Args:
        boxes: (B, 4).
        share: standard deviation of the displacement as a share of width and height; 0.1 in the
            published study.
        noise: (B, 4) normally distributed numbers.
        largest: the largest displacement in pixels.
    """
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + (noise * share * sizes).clamp(-largest, largest)
    # Every box keeps a width and a height of at least one pixel.
    return torch.cat([moved[:, :2], torch.maximum(moved[:, 2:], moved[:, :2] + 1)], dim=1)


def depth_of(masks: Tensor) -> Tensor:
    """How deep each pixel lies in a mask (B, H, W): 0 outside, larger towards the middle.

    The depth is the sum of the filled shares of windows of four sizes. This costs less than a
    distance transform, and runs on every device.
    """
    inside = masks.float()
    depth = torch.zeros_like(inside)
    for share in _DEPTHS:
        half = max(1, round(share * masks.shape[-1]))
        depth += _window_sums(inside, half) / (2 * half + 1) ** 2
    return depth * inside


def _window_sums(maps: Tensor, half: int) -> Tensor:
    """Sums over windows of 2 × `half` + 1 pixels; zeros lie around the maps (B, H, W)."""
    padded = functional.pad(maps, (half + 1, half, half + 1, half))
    total = padded.cumsum(1).cumsum(2)
    width = 2 * half + 1
    return (
        total[:, width:, width:]
        - total[:, :-width, width:]
        - total[:, width:, :-width]
        + total[:, :-width, :-width]
    )


def points_within(masks: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A point (B, 2), x and y in pixels, well inside each mask; and which masks are not empty.

    Args:
        masks: (B, H, W) bool.
        noise: (B, H, W) from 0 to 1, for a random choice among deep pixels; zeros choose the
            deepest one.
    """
    return _highest_places(depth_of(masks) + noise * masks), masks.flatten(1).any(1)


def _highest_places(scores: Tensor) -> Tensor:
    """The centres (B, 2), x and y, of the pixels at which maps (B, H, W) are highest."""
    position = scores.flatten(1).argmax(1)
    width = scores.shape[-1]
    return torch.stack([position % width, position // width], dim=1) + 0.5


def correcting_points(found: Tensor, true: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The next click, in the middle of the largest error.

    Args:
        found: (B, H, W) bool, the previous mask.
        true: (B, H, W) bool.
        noise: (B, H, W) from 0 to 1, for a random choice among deep pixels; zeros choose the
            deepest one.

    Returns:
        Points (B, 2), and their labels (B,): POSITIVE where the mask lacks something, NEGATIVE
        where it has too much, PADDING where it is right.
    """
    missing, extra = true & ~found, found & ~true
    scores = torch.stack([depth_of(each) + noise * each for each in (missing, extra)], dim=1)
    deepest = scores.flatten(2).amax(2)
    kind = deepest.argmax(1)
    points = _highest_places(scores[torch.arange(len(kind), device=kind.device), kind])
    labels = torch.where(kind == 0, POSITIVE, NEGATIVE)
    return points, torch.where(deepest.amax(1) > 0, labels, PADDING)


def first_prompts(masks: Tensor, boxed: Tensor, share: float, noise: Tensor) -> PromptSet:
    """A jittered box for some images, a point for the others.

    Args:
        masks: (B, H, W) bool, none empty.
        boxed: (B,) bool.
        share: of the jitter, as in `jittered`.
        noise: (B, H, W) from 0 to 1, for points and jitter.
    """
    points, _ = points_within(masks, noise)
    # Four of the uniform numbers, transformed to normally distributed ones.
    normal = torch.erfinv(noise.flatten(1)[:, :4].clamp(0.001, 0.999) * 2 - 1) * 2**0.5
    boxes = jittered(boxes_around(masks), share, normal)
    boxes = torch.where(boxed[:, None], boxes, torch.nan)
    labels = torch.where(boxed, PADDING, POSITIVE)
    return PromptSet(points[:, None], labels[:, None], boxes)
