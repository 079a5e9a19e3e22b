"""Small images with an axis of time, whose frames differ so that a wrong one is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.volumes import Geometry, Labelmap, Volume
from SAMFineTuneLib.volumes.image_grid import placed
from Testing.support.synthetic_volumes import head


def film(
    frames: int = 3, shape: tuple[int, int, int] = (6, 24, 24)
) -> tuple[list[Volume], list[Labelmap]]:
    """Heads whose structures move from frame to frame."""
    pairs = [
        head(shape, seed=number, centre=(0.0, 0.12 * (number - frames // 2)))
        for number in range(frames)
    ]
    return [volume for volume, _ in pairs], [labels for _, labels in pairs]


def write_film(
    path: Path, arrays: Sequence[NDArray[np.generic]], geometry: Geometry, step: float = 0.5
) -> Path:
    """Writes arrays (k, j, i), or (k, j, i, 3) in colour, as the frames of one file by ITK."""
    images = [
        placed(sitk.GetImageFromArray(each, isVector=each.ndim > 3), geometry) for each in arrays
    ]
    sitk.WriteImage(sitk.JoinSeries(images, 0.0, step), path, useCompression=True)
    return path
