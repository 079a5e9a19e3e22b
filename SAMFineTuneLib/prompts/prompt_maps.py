"""Prompts as maps at stride 4: discs for points, filled boxes, and the previous mask."""

from __future__ import annotations

import torch
from torch import Tensor

from SAMFineTuneLib.prompts.prompt_set import NEGATIVE, POSITIVE, PromptSet

STRIDE = 4
# Radius of a point's disc, as a share of the square's side.
_RADIUS = 0.025


def draw_maps(prompts: PromptSet, side: int) -> Tensor:
    """Maps (B, 4, side, side): positive points, negative points, box, previous mask.

    Args:
        prompts: of B images, on a square of 4 × `side` pixels.
        side: of the maps, in pixels.
    """
    axis = (torch.arange(side, device=prompts.points.device) + 0.5) * STRIDE
    discs = _discs(prompts.points, axis, _RADIUS * side * STRIDE)
    positive, negative = (
        _largest(discs, prompts.labels == label) for label in (POSITIVE, NEGATIVE)
    )
    box = _filled(prompts.boxes, axis)
    if prompts.further_boxes is not None:
        for boxes in prompts.further_boxes.unbind(1):
            box = torch.maximum(box, _filled(boxes, axis))
    mask = torch.zeros_like(box) if prompts.mask is None else prompts.mask[:, 0].sigmoid() - 0.5
    return torch.stack([positive, negative, box, mask.to(box.dtype)], dim=1)


def _filled(boxes: Tensor, axis: Tensor) -> Tensor:
    """(B, side, side), 1 within the boxes (B, 4)."""
    left, top, right, bottom = (each[:, None, None] for each in boxes.unbind(1))
    x, y = axis[None, None, :], axis[None, :, None]
    # The coordinates of a missing box are NaN. Comparisons with NaN are false, so its map is empty.
    return ((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).float()


def _discs(points: Tensor, axis: Tensor, radius: float) -> Tensor:
    """(B, N, side, side), 1 at each point and decreasing around it."""
    x = (axis - points[..., :1]) / radius
    y = (axis - points[..., 1:]) / radius
    return torch.exp(-(x.square()[..., None, :] + y.square()[..., :, None]))


def _largest(discs: Tensor, chosen: Tensor) -> Tensor:
    if not discs.shape[1]:
        return discs.new_zeros(len(discs), *discs.shape[2:])
    return (discs * chosen[..., None, None]).amax(1)
