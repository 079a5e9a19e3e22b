"""Corrupted masks, as mask prompts for training: true masks with the errors that users correct.

The errors are of two kinds. A mask that a model predicted is too large in one place and too small
in another, lacks a piece or has one too many. A mask that was taken from a neighbouring slice is
shifted a little and has another size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.prompts.prompt_maps import STRIDE
from SAMFineTuneLib.prompts.simulated import boxes_around
from SAMFineTuneLib.random_source import RandomSource

# Standard deviations of the displacement: of the logarithm of the scales, of the rotation in
# radians, and, in units of the structure's size, of the shift and the elastic displacement.
_SCALE, _TURN, _SHIFT, _ELASTIC = 0.12, 0.12, 0.06, 0.05
_ELASTIC_POINTS = 6
# Share of masks from which a piece is cut off, and share to which one is added.
_CUT, _ADDED = 0.25, 0.25
# Range of the logits' magnitude.
_STRENGTHS = (2.0, 8.0)


def corrupted_masks(masks: Tensor, random: RandomSource, stride: int = STRIDE) -> Tensor:
    """Logits (B, 1, s, s) of corrupted masks, in the form in which mask prompts are given.

    Args:
        masks: (B, S, S) bool, the true masks, none empty.
        random: source of all random numbers.
        stride: of the backbone's masks, s = S / `stride`. The errors do not depend on it: they are
            made at stride 4.
    """
    batch, side = len(masks), masks.shape[-1] // STRIDE
    share = functional.avg_pool2d(masks[:, None].float(), STRIDE)
    boxes = boxes_around(masks) / masks.shape[-1]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=2 / side).prod(1).sqrt()
    axis = (torch.arange(side, device=masks.device) + 0.5) / side
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    # Positions (B, s, s, 2) relative to the structure's centre, in units of its size.
    places = (places - middle[:, None, None]) / size[:, None, None, None]
    moved = _displaced(places, random) * size[:, None, None, None] + middle[:, None, None]
    wrong = functional.grid_sample(share, moved * 2 - 1, align_corners=False)[:, 0]
    wrong = _grown_or_shrunk(wrong, random)
    wrong = (wrong | _blobs(places, random)) & ~_pieces(places, random)
    # Where nothing is left of a small structure, its true mask is taken.
    empty = ~wrong.flatten(1).any(1)
    wrong = torch.where(empty[:, None, None], share[:, 0] > 0, wrong)
    strength = random.each_between(*_STRENGTHS, batch)[:, None, None, None]
    logits = strength * (2 * wrong[:, None].float() - 1)
    soft = functional.avg_pool2d(logits, 3, stride=1, padding=1, count_include_pad=False)
    softened = (random.each_between(0, 1, batch) < 0.5) & (soft > 0).flatten(1).any(1)
    logits = torch.where(softened[:, None, None, None], soft, logits)
    if stride == STRIDE:
        return logits
    return functional.interpolate(logits, (masks.shape[-1] // stride,) * 2, mode="bilinear")


def _displaced(places: Tensor, random: RandomSource) -> Tensor:
    """For each position, the displaced position that is sampled in its place."""
    batch, side = places.shape[:2]
    turn = _TURN * random.normal(batch)
    scales = (_SCALE * random.normal(batch, 2)).exp()
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
    shift = _SHIFT * random.normal(batch, 1, 1, 2)
    elastic = _ELASTIC * random.smooth(2 * batch, _ELASTIC_POINTS, side).view(batch, 2, side, side)
    turned = torch.einsum("bij,bhwj->bhwi", rotation * scales[:, None], places)
    return turned + shift + elastic.permute(0, 2, 3, 1)


def _grown_or_shrunk(share: Tensor, random: RandomSource) -> Tensor:
    """(B, s, s) shares to bool; a threshold other than 0.5 moves the edges out or in."""
    blurred = functional.avg_pool2d(share[:, None], 5, stride=1, padding=2)[:, 0]
    threshold = random.each_between(0.2, 0.8, len(share))[:, None, None]
    kept = (random.each_between(0, 1, len(share)) < 0.5)[:, None, None]
    return torch.where(kept, share > 0.5, blurred > threshold)


def _blobs(places: Tensor, random: RandomSource) -> Tensor:
    """(B, s, s) discs at the edges of some structures."""
    batch = len(places)
    middle = _direction(random, batch) * random.each_between(0.35, 0.7, batch, 1)
    radius = random.each_between(0.1, 0.35, batch)[:, None, None]
    added = (random.each_between(0, 1, batch) < _ADDED)[:, None, None]
    return added & ((places - middle[:, None, None]).norm(dim=-1) < radius)


def _pieces(places: Tensor, random: RandomSource) -> Tensor:
    """(B, s, s) the part of some structures that lies beyond a straight line."""
    batch = len(places)
    along = (places * _direction(random, batch)[:, None, None]).sum(-1)
    edge = random.each_between(0.0, 0.4, batch)[:, None, None]
    cut = (random.each_between(0, 1, batch) < _CUT)[:, None, None]
    return cut & (along > edge)


def _direction(random: RandomSource, batch: int) -> Tensor:
    angle = random.each_between(0, 2 * math.pi, batch)
    return torch.stack([angle.cos(), angle.sin()], dim=1)
