"""Converting grey levels and colours to the three channels that a backbone was trained on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.networks.spec import PixelNormalisation
from SAMFineTuneLib.slices.intensity import PixelWindow

# Segment Anything's channel statistics, for values from 0 to 255.
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_DEVIATION = (58.395, 57.12, 57.375)


def channels_first(image: np.ndarray) -> Tensor:
    """A slice's image as a float32 tensor.

    Returns:
        (rows, columns) for an image of this shape, (channels, rows, columns) for one of shape
        (rows, columns, channels).
    """
    if image.ndim == 3:
        image = np.moveaxis(image, -1, 0)
    return torch.from_numpy(np.ascontiguousarray(image)).float()


def network_pixels(image: Tensor, window: PixelWindow, normalisation: PixelNormalisation) -> Tensor:
    """Converts an image with values from 0 to 1 to (3, S, S) as the backbone expects it.

    "sam" normalises by Segment Anything's statistics of its three channels; "unit" normalises the
    window's voxels to zero mean and unit variance; "zero_to_one" leaves values as they are. A grey
    level is repeated in three channels. The third channel of two images is their mean.

    Args:
        image: (S, S), or (channels, S, S) with two or three channels.
        window: with which the image was made from intensities.
        normalisation: that of the backbone.
    """
    if normalisation == "unit":
        mean, deviation = (
            torch.tensor(each, dtype=image.dtype).reshape(-1, 1, 1)
            for each in (window.mean, window.standard_deviation)
        )
        return _three((image - mean) / deviation)
    if normalisation == "zero_to_one":
        return _three(image)
    mean = torch.tensor(SAM_MEAN)[:, None, None]
    deviation = torch.tensor(SAM_DEVIATION)[:, None, None]
    return (_three(image) * 255.0 - mean) / deviation


def _three(image: Tensor) -> Tensor:
    if image.ndim == 2:
        return image.expand(3, -1, -1)
    if len(image) == 2:
        return torch.cat([image, image.mean(0, keepdim=True)])
    return image.expand(3, -1, -1)
