"""Prompts as a user would give them, drawn from the true mask; for training and for measuring.

Never for a result that is called automatic. The first prompt is a jittered box or a point well
inside; the next points lie in the middle of the largest error of the previous mask, as Segment
Anything was trained and as interactive segmentation is measured.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.prompts.prompt_set import NEGATIVE, PADDING, POSITIVE, PromptSet

# Half-widths of the windows, as shares of the side, whose filling tells how deep a place lies.
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
        share: deviation of the move as a share of width and height; the study's is a tenth.
        noise: (B, 4) normal numbers.
        largest: pixels.
    """
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + (noise * share * sizes).clamp(-largest, largest)
    # A box keeps a pixel of area, however it was moved.
    return torch.cat([moved[:, :2], torch.maximum(moved[:, 2:], moved[:, :2] + 1)], dim=1)


def depth_of(masks: Tensor) -> Tensor:
    """How deep each place lies in a mask (B, H, W): 0 outside, larger towards the middle.

    The filling of windows of four sizes, which costs less than a distance and can be had on
    every device.
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
    """A point (B, 2), x and y in pixels, well inside each mask; and which masks have any.

    Args:
        masks: (B, H, W) bool.
        noise: (B, H, W) from 0 to 1, for the choice among deep places; zeros take the deepest.
    """
    return _highest_places(depth_of(masks) + noise * masks), masks.flatten(1).any(1)


def _highest_places(scores: Tensor) -> Tensor:
    """Where maps (B, H, W) are highest: centres of pixels (B, 2), x and y."""
    position = scores.flatten(1).argmax(1)
    width = scores.shape[-1]
    return torch.stack([position % width, position // width], dim=1) + 0.5


def correcting_points(found: Tensor, true: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The next click: in the middle of the largest error.

    Args:
        found: (B, H, W) bool, the previous mask.
        true: (B, H, W) bool.
        noise: (B, H, W) from 0 to 1; zeros take the very middle.

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
        share: of the jitter; see `jittered`.
        noise: (B, H, W) from 0 to 1, for points and jitter.
    """
    points, _ = points_within(masks, noise)
    # Four of the numbers, made normal.
    normal = torch.erfinv(noise.flatten(1)[:, :4].clamp(0.001, 0.999) * 2 - 1) * 2**0.5
    boxes = jittered(boxes_around(masks), share, normal)
    boxes = torch.where(boxed[:, None], boxes, torch.nan)
    labels = torch.where(boxed, PADDING, POSITIVE)
    return PromptSet(points[:, None], labels[:, None], boxes)
