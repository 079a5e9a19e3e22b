"""The uncertainty of a prediction, for each voxel and for each slice."""

from __future__ import annotations

import numpy as np
from torch import Tensor

# A voxel counts as background where the probability of all structures together is below this.
_CLAIM = 0.05
# The mean of a slice is over at least this share of its voxels, so that a few uncertain voxels on
# an otherwise certain slice do not outweigh a whole uncertain structure.
_LEAST_SHARE = 0.001
# Sampled pixels along the shorter side of a slice: enough for a mean, at negligible cost.
_SAMPLES = 128


def at_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """The probabilities that the logits divided by a temperature give; at 1 the same tensor.

    A temperature above 1 makes them less certain, one below 1 more. Which of two classes is the
    likelier stays as it is.

    Args:
        probabilities: (…, classes, rows, columns), the softmax of logits.
        temperature: above 0; see `training.temperature`.
    """
    if temperature == 1:
        return probabilities
    return (probabilities.log() / temperature).softmax(-3)


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


def slice_uncertainty(probabilities: Tensor, claims: Tensor | None = None) -> list[float]:
    """One figure for each slice, by which slices are compared to find the one to label next.

    It is the mean of `voxel_uncertainty` over the voxels in which the probability of background is
    below 0.95, but over at least 0.1 % of the slice's voxels. It is 0 for a slice of background,
    and nearly 0 for a slice whose structures are all certain, however large they are. Where
    structures are uncertain, it depends on how large a part of them is.

    Args:
        probabilities: (B, classes, rows, columns), background first.
        claims: probabilities likewise that say which voxels count; None for the same. Those at
            another temperature are to be measured on the voxels that the network itself claims: a
            high temperature has background around a structure count, and which slices are wrong
            is then hardly told any more (`Testing.benchmarks.uncertainty`).
    """
    step = max(1, min(probabilities.shape[-2:]) // _SAMPLES)
    sample = probabilities[..., ::step, ::step]
    claiming = sample if claims is None else claims[..., ::step, ::step]
    claimed = claiming[:, 0] < 1 - _CLAIM
    doubt = (voxel_uncertainty(sample) * claimed).sum((1, 2))
    counted = claimed.sum((1, 2)).clamp_min(_LEAST_SHARE * claimed[0].numel())
    # Rounding of the logarithm must not give values below 0 or above 1.
    shares: list[float] = (doubt / counted).clamp(0, 1).tolist()
    return [round(share, 4) for share in shares]
