"""What a synthetic anatomy looks like: random grey levels, and all that makes images imperfect.

Grey levels are random for each label, so that no modality is learnt (as in SynthSeg, Billot et al.
2023); the rest imitates kinds of images, not any image: texture, partial volume, bias field, blur,
speckle, noise, coarse resolution, windows, borders and fields of view.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.pretraining.anatomy import Anatomy
from SAMFineTuneLib.random_source import Chance


def draw_images(anatomy: Anatomy, chance: Chance, one_volume: bool) -> tuple[Tensor, Tensor]:
    """Images of an anatomy's slices.

    Args:
        anatomy: N slices.
        chance: everything random.
        one_volume: whether all slices were taken in one examination, or each in its own.

    Returns:
        Images (N, S, S) of zero mean and unit deviation over all or over each; and which pixels
        show anatomy at all, (N, S, S) bool.
    """
    images = _tissue_grey_levels(anatomy, chance, one_volume)
    images = _textured(images, anatomy, chance)
    images = _blurred(images, chance)
    images = _biased(images, chance)
    if chance.happens(0.15):
        images = _speckled(images, chance)
    noise_last = chance.happens(0.5)
    if not noise_last:
        images = _noisy(images, chance)
    if chance.happens(0.65):
        images = _coarse(images, chance)
    if noise_last:
        images = _noisy(images, chance)
    images = _windowed(images, chance, one_volume)
    images, seen = _framed(images, chance)
    return _normalised(images, chance, one_volume), seen


def _tissue_grey_levels(anatomy: Anatomy, chance: Chance, one_volume: bool) -> Tensor:
    """Labels share a few tissues, so that neighbours often look nearly the same."""
    slices = len(anatomy.labels)
    tissues = chance.each_between(0, 1, chance.whole(3, 9))
    kinds = chance.each_whole(len(tissues), anatomy.count)
    own = chance.between(0.02, 0.12)
    levels = tissues[kinds] + own * chance.normal(anatomy.count)
    spread = chance.between(0.0, 0.015 if one_volume else 0.06)
    levels = levels + spread * chance.normal(slices, anatomy.count)
    return torch.gather(levels, 1, anatomy.labels.flatten(1)).reshape(anatomy.labels.shape)


def _textured(images: Tensor, anatomy: Anatomy, chance: Chance) -> Tensor:
    size = images.shape[-1]
    for grain in (chance.between(1, 3), chance.between(4, 14)):
        if chance.happens(0.7):
            strengths = chance.between(0, 0.12) * chance.each_between(0, 1, anatomy.count)
            texture = chance.grainy(len(images), grain, size)
            images = images + strengths[anatomy.labels] * texture
    return images


def _blurred(images: Tensor, chance: Chance) -> Tensor:
    """Partial volume: edges are never sharp."""
    width = chance.between(0.0, 1.0)
    side = width / 4
    kernel = torch.tensor([side, 1 - 2 * side, side], device=images.device)
    padded = functional.pad(images[:, None], (1, 1, 1, 1), mode="replicate")
    blurred = functional.conv2d(padded, kernel.reshape(1, 1, 3, 1))
    return functional.conv2d(blurred, kernel.reshape(1, 1, 1, 3))[:, 0]


def _biased(images: Tensor, chance: Chance) -> Tensor:
    strength = chance.between(0, 0.3) if chance.happens(0.6) else 0.0
    if not strength:
        return images
    bias = chance.smooth(len(images), chance.whole(2, 4), images.shape[-1])
    return images * (1 + strength * bias)


def _speckled(images: Tensor, chance: Chance) -> Tensor:
    grains = chance.grainy(len(images), chance.between(1, 3.5), images.shape[-1])
    return images * (1 + chance.between(0.1, 0.6) * grains)


def _noisy(images: Tensor, chance: Chance) -> Tensor:
    strength = chance.between(0, 0.1) if chance.happens(0.8) else 0.0
    return images + strength * chance.normal(*images.shape) if strength else images


def _coarse(images: Tensor, chance: Chance) -> Tensor:
    """Seen at a lower resolution, perhaps lower in one direction."""
    size = images.shape[-1]
    factor = chance.scale_between(1.2, 6.0)
    other = factor * chance.scale_between(0.6, 1.6) if chance.happens(0.4) else factor
    shape = [max(24, round(size / max(1.0, each))) for each in (factor, other)]
    low = functional.interpolate(images[:, None], shape, mode="area")
    return functional.interpolate(low, (size, size), mode="bilinear", align_corners=False)[:, 0]


def _windowed(images: Tensor, chance: Chance, one_volume: bool) -> Tensor:
    """Grey levels 0 … 1 through a random curve, as the percentile window gives them."""
    flat = images.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    if one_volume:
        low, high = low.min().expand_as(low), high.max().expand_as(high)
    span = (high - low).clamp(min=1e-3)
    if chance.happens(0.4):
        low, high = low + span * chance.between(0, 0.35), high - span * chance.between(0, 0.35)
        span = high - low
    levels = ((images - low[:, None, None]) / span[:, None, None]).clamp(0, 1)
    curves = torch.exp(
        chance.between(-0.5, 0.5) + (0.05 if one_volume else 0.2) * chance.normal(len(images))
    )
    return levels.clamp(min=1e-4) ** curves[:, None, None]


def _framed(images: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """Only a part of the square shows anatomy; the rest has the lowest value."""
    slices, size = len(images), images.shape[-1]
    axis = torch.arange(size, device=images.device) / size
    y, x = axis[:, None], axis[None, :]
    seen = torch.ones(size, size, dtype=torch.bool, device=images.device)
    if chance.happens(0.35):
        # A slice that is not square begins at the first row and column.
        share = chance.between(0.5, 1.0)
        seen = seen & ((y < share) if chance.happens(0.5) else (x < share)).expand_as(seen)
    if chance.happens(0.1):
        radius = chance.between(0.4, 0.6)
        seen = seen & ((x - 0.5) ** 2 + (y - 0.5) ** 2 < radius**2)
    elif chance.happens(0.06):
        # The sector of an ultrasound probe at the top.
        angle = torch.atan2(x - 0.5, y + chance.between(0.05, 0.3)).abs()
        seen = seen & (angle < chance.between(0.4, 0.9))
    lowest = images.amin((1, 2), keepdim=True)
    return torch.where(seen, images, lowest), seen.expand(slices, -1, -1)


def _normalised(images: Tensor, chance: Chance, one_volume: bool) -> Tensor:
    over = (0, 1, 2) if one_volume else (1, 2)
    mean, deviation = images.mean(over, keepdim=True), images.std(over, keepdim=True)
    normal = (images - mean) / deviation.clamp(min=1e-3)
    # What the network meets is normalised over a whole volume, not over these slices.
    gain = torch.exp(0.1 * chance.normal(len(images), 1, 1))
    return normal * gain + 0.1 * chance.normal(len(images), 1, 1)
