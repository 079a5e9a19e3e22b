"""Splits the pixels of each class into a few clusters of similar appearance and place.

A structure may have a wall and a lumen, and background is everything else, so that one average
describes neither well. The labelled pixels of each class are therefore split into clusters of
similar features and place (k-means), and each cluster gets a prototype of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Background varies more than a structure, so it has more clusters.
BACKGROUND_CLUSTERS, STRUCTURE_CLUSTERS = 12, 4
_ITERATIONS = 4


def cluster_counts(classes: int) -> list[int]:
    """How many clusters each class has, background first."""
    return [BACKGROUND_CLUSTERS] + [STRUCTURE_CLUSTERS] * (classes - 1)


@torch.no_grad()
def cluster_masks(features: Tensor, shares: Tensor) -> Tensor:
    """Splits each class's pixels into clusters.

    Args:
        features: (N, C, h, w); the smaller their distance, the more alike are two pixels.
        shares: (N, K, h, w), the share of each class in each pixel, background first.

    Returns:
        (N, M, h, w), the share of each cluster in each pixel. The clusters of a class follow each
        other, as many as `cluster_counts` gives; their shares add up to that of the class. Some
        clusters of a class with few pixels are empty.
    """
    slices, classes, height, width = shares.shape
    points = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    weights = shares.permute(1, 0, 2, 3).reshape(classes, -1)
    parts = [
        _clusters(points, weights[number], count)
        for number, count in enumerate(cluster_counts(classes))
    ]
    return torch.cat(parts).reshape(-1, slices, height, width).transpose(0, 1)


def _clusters(points: Tensor, weights: Tensor, count: int) -> Tensor:
    """Weights (P,) split among `count` clusters of the points (P, C): (count, P)."""
    split = weights.new_zeros(count, len(weights))
    used = weights.nonzero().flatten()
    if not len(used):
        return split
    chosen, weight = points[used], weights[used]
    # Evenly spaced in the order of the pixels, so that the first centres lie apart.
    spread = torch.linspace(0, len(used) - 1, count, device=points.device).round().long()
    centres = chosen[spread]
    for iteration in range(_ITERATIONS):
        nearest = torch.cdist(chosen, centres).argmin(1)
        member = torch.nn.functional.one_hot(nearest, count).to(weight.dtype) * weight[:, None]
        if iteration < _ITERATIONS - 1:
            mass = member.sum(0)[:, None]
            moved = member.T @ chosen / mass.clamp(min=1e-6)
            centres = torch.where(mass > 0, moved, centres)
    split[:, used] = member.T
    return split
