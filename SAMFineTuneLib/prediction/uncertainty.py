"""How sure a model is of what it found, voxel by voxel and slice by slice."""

from __future__ import annotations

import numpy as np
from torch import Tensor

# A voxel that some structure claims with less than this is plainly background.
_CLAIM = 0.05
# A slice is judged by this share of its voxels at the least, so that a few doubtful ones on an
# otherwise clear slice do not outweigh a whole structure in doubt.
_LEAST_SHARE = 0.001
# Sampled pixels along the shorter side of a slice: enough for a mean, and it costs next to nothing.
_SAMPLES = 128


def voxel_uncertainty(probabilities: Tensor) -> Tensor:
    """Entropy of class probabilities over its largest possible value.

    Args:
        probabilities: (…, classes, rows, columns).

    Returns:
        (…, rows, columns): 0 certain, 1 every class equally likely.
    """
    classes = probabilities.shape[-3]
    logs = probabilities.clamp_min(1e-12).log()
    return -(probabilities * logs).sum(-3) / float(np.log(classes))


def slice_uncertainty(probabilities: Tensor) -> list[float]:
    """One figure a slice, to compare slices by: where is it worth looking next?

    The mean of `voxel_uncertainty` over the voxels that some structure claims (the probability of
    background is below 0.95), but over 0.1 % of the slice's voxels at the least. A slice of
    plain background gets 0, and one whose structures are all sure nearly so, however large they
    are; a faint structure weighs by how much of what is claimed is in doubt.

    Args:
        probabilities: (B, classes, rows, columns), background first.
    """
    step = max(1, min(probabilities.shape[-2:]) // _SAMPLES)
    sample = probabilities[..., ::step, ::step]
    claimed = sample[:, 0] < 1 - _CLAIM
    doubt = (voxel_uncertainty(sample) * claimed).sum((1, 2))
    counted = claimed.sum((1, 2)).clamp_min(_LEAST_SHARE * claimed[0].numel())
    # The logarithm's rounding must not make a sure slice doubtful, nor less than sure.
    shares: list[float] = (doubt / counted).clamp(0, 1).tolist()
    return [round(share, 4) for share in shares]
