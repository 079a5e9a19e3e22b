"""Converting grey levels to the three channels that a backbone was trained on."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from SAMFineTuneLib.slices.intensity import IntensityWindow

PixelNormalisation = Literal["sam", "unit"]

# Segment Anything's channel statistics, for values from 0 to 255.
_SAM_MEAN = (123.675, 116.28, 103.53)
_SAM_DEVIATION = (58.395, 57.12, 57.375)


def network_pixels(
    image: Tensor, window: IntensityWindow, normalisation: PixelNormalisation
) -> Tensor:
    """Converts a grey image (S, S), 0 to 1 in its window, to (3, S, S) as the backbone expects it.

    "sam" repeats the grey level in three channels and normalises by Segment Anything's statistics;
    "unit" normalises the window's voxels to zero mean and unit variance.
    """
    if normalisation == "unit":
        return ((image - window.mean) / window.standard_deviation).expand(3, -1, -1)
    mean = torch.tensor(_SAM_MEAN)[:, None, None]
    deviation = torch.tensor(_SAM_DEVIATION)[:, None, None]
    return (image * 255.0 - mean) / deviation
