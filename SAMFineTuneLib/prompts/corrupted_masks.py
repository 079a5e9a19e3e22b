"""Masks that are wrong as those are that a user corrects; for training with mask prompts.

A model's own mask is too large here and too small there, lacks a piece or has one too many; the
mask of a neighbouring slice is a little elsewhere and of another size. Both are drawn from the true
mask.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.prompts.prompt_maps import STRIDE
from SAMFineTuneLib.prompts.simulated import boxes_around
from SAMFineTuneLib.random_source import Chance

# Deviations of the smooth displacement: logarithm of the scales, turn in radians, and, in units of
# the structure's size, shift and elastic displacement.
_SCALE, _TURN, _SHIFT, _ELASTIC = 0.12, 0.12, 0.06, 0.05
_ELASTIC_POINTS = 6
# How often a piece is cut off, and how often one is added.
_CUT, _ADDED = 0.25, 0.25
# Logits of the mask on either side of zero.
_STRENGTHS = (2.0, 8.0)


def wrong_masks(masks: Tensor, chance: Chance) -> Tensor:
    """Logits (B, 1, S/4, S/4) of wrong masks, as a previous mask is given to the network.

    Args:
        masks: (B, S, S) bool, the true ones, none empty.
        chance: everything random.
    """
    batch, side = len(masks), masks.shape[-1] // STRIDE
    share = functional.avg_pool2d(masks[:, None].float(), STRIDE)
    boxes = boxes_around(masks) / masks.shape[-1]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=2 / side).prod(1).sqrt()
    axis = (torch.arange(side, device=masks.device) + 0.5) / side
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    # Places (B, s, s, 2) from the structure's middle in units of its size.
    places = (places - middle[:, None, None]) / size[:, None, None, None]
    moved = _displaced(places, chance) * size[:, None, None, None] + middle[:, None, None]
    wrong = functional.grid_sample(share, moved * 2 - 1, align_corners=False)[:, 0]
    wrong = _grown_or_shrunk(wrong, chance)
    wrong = (wrong | _blobs(places, chance)) & ~_pieces(places, chance)
    # Of what is so small that nothing is left the whole is taken.
    empty = ~wrong.flatten(1).any(1)
    wrong = torch.where(empty[:, None, None], share[:, 0] > 0, wrong)
    strength = chance.each_between(*_STRENGTHS, batch)[:, None, None, None]
    logits = strength * (2 * wrong[:, None].float() - 1)
    soft = functional.avg_pool2d(logits, 3, stride=1, padding=1, count_include_pad=False)
    softened = (chance.each_between(0, 1, batch) < 0.5) & (soft > 0).flatten(1).any(1)
    return torch.where(softened[:, None, None, None], soft, logits)


def _displaced(places: Tensor, chance: Chance) -> Tensor:
    """Where each place looks instead."""
    batch, side = places.shape[:2]
    turn = _TURN * chance.normal(batch)
    scales = (_SCALE * chance.normal(batch, 2)).exp()
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
    shift = _SHIFT * chance.normal(batch, 1, 1, 2)
    elastic = _ELASTIC * chance.smooth(2 * batch, _ELASTIC_POINTS, side).view(batch, 2, side, side)
    turned = torch.einsum("bij,bhwj->bhwi", rotation * scales[:, None], places)
    return turned + shift + elastic.permute(0, 2, 3, 1)


def _grown_or_shrunk(share: Tensor, chance: Chance) -> Tensor:
    """(B, s, s) shares to bool; where the threshold is not a half, edges move out or in."""
    blurred = functional.avg_pool2d(share[:, None], 5, stride=1, padding=2)[:, 0]
    threshold = chance.each_between(0.2, 0.8, len(share))[:, None, None]
    kept = (chance.each_between(0, 1, len(share)) < 0.5)[:, None, None]
    return torch.where(kept, share > 0.5, blurred > threshold)


def _blobs(places: Tensor, chance: Chance) -> Tensor:
    """(B, s, s) discs at the edges of some structures."""
    batch = len(places)
    middle = _direction(chance, batch) * chance.each_between(0.35, 0.7, batch, 1)
    radius = chance.each_between(0.1, 0.35, batch)[:, None, None]
    added = (chance.each_between(0, 1, batch) < _ADDED)[:, None, None]
    return added & ((places - middle[:, None, None]).norm(dim=-1) < radius)


def _pieces(places: Tensor, chance: Chance) -> Tensor:
    """(B, s, s) what lies on the far side of a line through some structures."""
    batch = len(places)
    along = (places * _direction(chance, batch)[:, None, None]).sum(-1)
    edge = chance.each_between(0.0, 0.4, batch)[:, None, None]
    cut = (chance.each_between(0, 1, batch) < _CUT)[:, None, None]
    return cut & (along > edge)


def _direction(chance: Chance, batch: int) -> Tensor:
    angle = chance.each_between(0, 2 * math.pi, batch)
    return torch.stack([angle.cos(), angle.sin()], dim=1)
