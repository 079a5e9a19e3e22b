"""Images of a synthetic anatomy: random grey levels and the imperfections of real images.

Grey levels are random for each label, so that no particular modality is learnt (as in SynthSeg,
Billot et al. 2023). The imperfections are texture, partial volume, bias field, blur, speckle,
noise, coarse resolution, windows, borders and fields of view.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.pretraining.synthetic.anatomy import Anatomy
from SAMFineTuneLib.random_source import RandomSource


def draw_images(anatomy: Anatomy, random: RandomSource, one_volume: bool) -> tuple[Tensor, Tensor]:
    """Images of an anatomy's slices.

    Args:
        anatomy: N slices.
        random: source of all random numbers.
        one_volume: whether all slices are of one examination, or each of its own.

    Returns:
        Images (N, S, S) of zero mean and unit standard deviation, over all images or over each; and
        which pixels show anatomy, (N, S, S) bool.
    """
    images = _tissue_grey_levels(anatomy, random, one_volume)
    images = _textured(images, anatomy, random)
    images = _blurred(images, random)
    images = _biased(images, random)
    if random.happens(0.15):
        images = _speckled(images, random)
    noise_last = random.happens(0.5)
    if not noise_last:
        images = _noisy(images, random)
    if random.happens(0.65):
        images = _coarse(images, random)
    if noise_last:
        images = _noisy(images, random)
    images = _windowed(images, random, one_volume)
    images, seen = _framed(images, random)
    return _normalised(images, random, one_volume), seen


def _tissue_grey_levels(anatomy: Anatomy, random: RandomSource, one_volume: bool) -> Tensor:
    """Grey levels of a few tissues, so that neighbouring labels often look nearly the same."""
    slices = len(anatomy.labels)
    tissues = random.each_between(0, 1, random.whole(3, 9))
    kinds = random.each_whole(len(tissues), anatomy.count)
    own = random.between(0.02, 0.12)
    levels = tissues[kinds] + own * random.normal(anatomy.count)
    spread = random.between(0.0, 0.015 if one_volume else 0.06)
    levels = levels + spread * random.normal(slices, anatomy.count)
    return torch.gather(levels, 1, anatomy.labels.flatten(1)).reshape(anatomy.labels.shape)


def _textured(images: Tensor, anatomy: Anatomy, random: RandomSource) -> Tensor:
    size = images.shape[-1]
    for grain in (random.between(1, 3), random.between(4, 14)):
        if random.happens(0.7):
            strengths = random.between(0, 0.12) * random.each_between(0, 1, anatomy.count)
            texture = random.grainy(len(images), grain, size)
            images = images + strengths[anatomy.labels] * texture
    return images


def _blurred(images: Tensor, random: RandomSource) -> Tensor:
    """Blurs edges, as partial volume does."""
    width = random.between(0.0, 1.0)
    side = width / 4
    kernel = torch.tensor([side, 1 - 2 * side, side], device=images.device)
    padded = functional.pad(images[:, None], (1, 1, 1, 1), mode="replicate")
    blurred = functional.conv2d(padded, kernel.reshape(1, 1, 3, 1))
    return functional.conv2d(blurred, kernel.reshape(1, 1, 1, 3))[:, 0]


def _biased(images: Tensor, random: RandomSource) -> Tensor:
    strength = random.between(0, 0.3) if random.happens(0.6) else 0.0
    if not strength:
        return images
    bias = random.smooth(len(images), random.whole(2, 4), images.shape[-1])
    return images * (1 + strength * bias)


def _speckled(images: Tensor, random: RandomSource) -> Tensor:
    grains = random.grainy(len(images), random.between(1, 3.5), images.shape[-1])
    return images * (1 + random.between(0.1, 0.6) * grains)


def _noisy(images: Tensor, random: RandomSource) -> Tensor:
    strength = random.between(0, 0.1) if random.happens(0.8) else 0.0
    return images + strength * random.normal(*images.shape) if strength else images


def _coarse(images: Tensor, random: RandomSource) -> Tensor:
    """Reduces the resolution, sometimes more in one direction."""
    size = images.shape[-1]
    factor = random.scale_between(1.2, 6.0)
    other = factor * random.scale_between(0.6, 1.6) if random.happens(0.4) else factor
    shape = [max(24, round(size / max(1.0, each))) for each in (factor, other)]
    low = functional.interpolate(images[:, None], shape, mode="area")
    return functional.interpolate(low, (size, size), mode="bilinear", align_corners=False)[:, 0]


def _windowed(images: Tensor, random: RandomSource, one_volume: bool) -> Tensor:
    """Grey levels 0 … 1 through a random curve, similar to those of a percentile window."""
    flat = images.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    if one_volume:
        low, high = low.min().expand_as(low), high.max().expand_as(high)
    span = (high - low).clamp(min=1e-3)
    if random.happens(0.4):
        low, high = low + span * random.between(0, 0.35), high - span * random.between(0, 0.35)
        span = high - low
    levels = ((images - low[:, None, None]) / span[:, None, None]).clamp(0, 1)
    curves = torch.exp(
        random.between(-0.5, 0.5) + (0.05 if one_volume else 0.2) * random.normal(len(images))
    )
    return levels.clamp(min=1e-4) ** curves[:, None, None]


def _framed(images: Tensor, random: RandomSource) -> tuple[Tensor, Tensor]:
    """Leaves a part of the square without anatomy, with the lowest value."""
    slices, size = len(images), images.shape[-1]
    axis = torch.arange(size, device=images.device) / size
    y, x = axis[:, None], axis[None, :]
    seen = torch.ones(size, size, dtype=torch.bool, device=images.device)
    if random.happens(0.35):
        # A slice that is not square begins at the first row and column.
        share = random.between(0.5, 1.0)
        seen = seen & ((y < share) if random.happens(0.5) else (x < share)).expand_as(seen)
    if random.happens(0.1):
        radius = random.between(0.4, 0.6)
        seen = seen & ((x - 0.5) ** 2 + (y - 0.5) ** 2 < radius**2)
    elif random.happens(0.06):
        # The sector of an ultrasound probe at the top.
        angle = torch.atan2(x - 0.5, y + random.between(0.05, 0.3)).abs()
        seen = seen & (angle < random.between(0.4, 0.9))
    lowest = images.amin((1, 2), keepdim=True)
    return torch.where(seen, images, lowest), seen.expand(slices, -1, -1)


def _normalised(images: Tensor, random: RandomSource, one_volume: bool) -> Tensor:
    over = (0, 1, 2) if one_volume else (1, 2)
    mean, deviation = images.mean(over, keepdim=True), images.std(over, keepdim=True)
    normal = (images - mean) / deviation.clamp(min=1e-3)
    # Real slices are normalised over their whole volume, so mean and deviation of a slice vary.
    gain = torch.exp(0.1 * random.normal(len(images), 1, 1))
    return normal * gain + 0.1 * random.normal(len(images), 1, 1)
