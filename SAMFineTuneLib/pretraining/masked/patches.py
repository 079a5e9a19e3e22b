"""Images as patches: which of them are masked, and what is to be predicted of them."""

from __future__ import annotations

import torch
from torch import Tensor

# Keeps the deviation of a uniform patch from 0, as in the original.
_LEAST_VARIANCE = 1e-6


def patches_of(images: Tensor, side: int) -> Tensor:
    """Images (B, 3, S, S) as patches (B, N, side · side · 3), row by row."""
    batch, channels, size, _ = images.shape
    count = size // side
    split = images.reshape(batch, channels, count, side, count, side)
    return split.permute(0, 2, 4, 3, 5, 1).reshape(batch, count * count, side * side * channels)


def images_of(patches: Tensor, side: int) -> Tensor:
    """The way back: patches (B, N, side · side · 3) to images (B, 3, S, S)."""
    batch, number, width = patches.shape
    count, channels = round(number**0.5), width // (side * side)
    split = patches.reshape(batch, count, count, side, side, channels)
    return split.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, count * side, count * side)


def draw_masks(share: float, noise: Tensor) -> Tensor:
    """(B, N) bool, which patches are masked: the same number in each image.

    Args:
        share: of masked patches.
        noise: (B, N) random numbers; the patches with the highest ones are masked.
    """
    highest = noise.topk(round(share * noise.shape[1]), dim=1).indices
    masked = torch.zeros(noise.shape, dtype=torch.bool, device=noise.device)
    return masked.scatter(1, highest, True)


def normalised(patches: Tensor) -> Tensor:
    """Each patch with zero mean and unit deviation."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + _LEAST_VARIANCE).sqrt()


def with_statistics_of(predicted: Tensor, patches: Tensor) -> Tensor:
    """Predicted normalised patches with mean and deviation of the true ones, to be looked at."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return predicted * (variance + _LEAST_VARIANCE).sqrt() + mean


def reconstruction_loss(predicted: Tensor, patches: Tensor, masked: Tensor) -> Tensor:
    """Mean squared error of the normalised pixels of masked patches.

    Args:
        predicted: (B, N, P).
        patches: (B, N, P) true pixels.
        masked: (B, N) bool.
    """
    error = (predicted.float() - normalised(patches.float())).square().mean(-1)
    return (error * masked).sum() / masked.sum()
