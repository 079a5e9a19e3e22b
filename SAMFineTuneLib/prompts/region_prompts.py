"""Prompts for all regions of a structure, as the study draws them (Gu et al., MELBA 2025:006).

Each connected region gets a box or a point, with equal chance. The box is tight, and its sides are
moved a little. The point lies where the distance to the region's edge is above its median, as in
Mazurowski et al. 2023.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from SAMFineTuneLib.prompts.mode import DrawnMode
from SAMFineTuneLib.prompts.prompt_set import PADDING, POSITIVE, PromptSet
from SAMFineTuneLib.prompts.simulated import jittered
from SAMFineTuneLib.random_source import RandomSource

# Standard deviation of the displacement of a box's sides as a share of its size; at most 20 pixels.
_JITTER = 0.1
_BOXED = 0.5
# The largest regions, at most; a speckled mask would have hundreds of prompts.
_MOST_REGIONS = 16


class RegionPrompts(NamedTuple):
    """Prompts, and what they mean.

    Attributes:
        prompts: of B images.
        masks: (B, S, S) bool, the regions that have a prompt.
    """

    prompts: PromptSet
    masks: Tensor


def region_prompts(masks: Tensor, random: RandomSource, mode: DrawnMode = "mixed") -> RegionPrompts:
    """A box or a point for each connected region of each mask.

    Args:
        masks: (B, S, S) bool, none empty.
        random: source of all random numbers.
        mode: "mixed" draws a box or a point for each region; the others give one kind.
    """
    drawn = [_prompts_of(mask, random, mode) for mask in masks.cpu().numpy()]
    most_points = max(1, *(len(points) for points, _, _ in drawn))
    most_boxes = max(1, *(len(boxes) for _, boxes, _ in drawn))
    places = torch.zeros(len(masks), most_points, 2)
    labels = torch.full((len(masks), most_points), PADDING)
    corners = torch.full((len(masks), most_boxes, 4), torch.nan)
    for number, (points, boxes, _) in enumerate(drawn):
        if points:
            places[number, : len(points)] = torch.tensor(points)
            labels[number, : len(points)] = POSITIVE
        if boxes:
            tight = torch.tensor(boxes)
            noise = random.normal(len(boxes), 4).cpu()
            corners[number, : len(boxes)] = jittered(tight, _JITTER, noise)
    device = masks.device
    further = corners[:, 1:].to(device) if most_boxes > 1 else None
    prompts = PromptSet(
        places.to(device), labels.to(device), corners[:, 0].to(device), further_boxes=further
    )
    meant = torch.from_numpy(np.stack([mask for _, _, mask in drawn])).to(device)
    return RegionPrompts(prompts, meant)


def _prompts_of(
    mask: np.ndarray, random: RandomSource, mode: DrawnMode
) -> tuple[list[tuple[float, float]], list[tuple[float, ...]], np.ndarray]:
    """Points (x, y), tight boxes, and the regions (S, S) that they are of."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())[1:]
    largest = np.argsort(-sizes, kind="stable")[:_MOST_REGIONS]
    slices = ndimage.find_objects(parts)
    points: list[tuple[float, float]] = []
    boxes: list[tuple[float, ...]] = []
    for region in largest.tolist():
        rows, columns = slices[region]
        boxed = random.happens(_BOXED) if mode == "mixed" else mode == "box"
        if boxed:
            boxes.append(tuple(map(float, (columns.start, rows.start, columns.stop, rows.stop))))
        else:
            row, column = _deep_pixel(parts[rows, columns] == region + 1, random)
            points.append((columns.start + column + 0.5, rows.start + row + 0.5))
    return points, boxes, np.isin(parts, largest + 1)


def _deep_pixel(region: np.ndarray, random: RandomSource) -> tuple[int, int]:
    """Row and column of a pixel of a region whose distance to the edge is above the median."""
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    deep = depth > np.median(depth[region])
    # In a thin region all pixels may be equally deep.
    rows, columns = np.nonzero(deep if deep.any() else region)
    chosen = random.whole(0, len(rows) - 1)
    return int(rows[chosen]), int(columns[chosen])
