"""Voxel values to the range that the networks expect."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import Volume

# Air in Hounsfield units; only calibrated CT has voxels that low.
_AIR = -900
_PERCENTILES = (0.5, 99.5)
# Percentiles need no more voxels than this, and a volume can have a billion.
_SAMPLE = 2_000_000


class IntensityWindow(BaseModel):
    """Values from `low` to `high` become 0 to 1, then zero mean and unit variance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    high: float
    mean: float
    standard_deviation: float

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels of any type and shape to float32, clipped to the window, 0 to 1."""
        scaled = (pixels.astype(np.float32) - self.low) / (self.high - self.low)
        clipped: np.ndarray = np.clip(scaled, 0, 1)
        return clipped


class VoxelSample(NamedTuple):
    """Evenly spread voxels of a volume, which outlive it in memory, and its modality."""

    values: np.ndarray
    modality: str | None


def sample_voxels(volume: Volume) -> VoxelSample:
    """At most about four million voxels, float32.

    Raises:
        InputError: all voxels have one value.
    """
    flat = volume.array.reshape(-1)
    # Sides are often powers of two: an even stride would see a few columns of each slice only.
    values = flat[:: max(1, flat.size // _SAMPLE) | 1].astype(np.float32)
    if flat.min() == flat.max():
        raise InputError(
            "the volume has the same value in every voxel",
            "check that the right file was chosen and that it was exported whole",
            code="constant_image",
        )
    return VoxelSample(values, volume.modality)


class IntensityNormalisation(BaseModel):
    """How the volumes of a tuned model are normalised.

    `calibrated` images (CT, in Hounsfield units) share one window, found on the examples, so that
    a value means the same tissue in every volume. All others get a window of their own from the
    percentiles of their voxels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["calibrated", "percentiles"]
    window: IntensityWindow | None = None

    def window_for(self, sample: VoxelSample) -> IntensityWindow:
        """The window that applies to the volume that a sample was taken of."""
        return self.window or _percentile_window([sample])


def find_normalisation(samples: list[VoxelSample]) -> IntensityNormalisation:
    """The normalisation that fits the example volumes."""
    if all(_is_calibrated(sample) for sample in samples):
        return IntensityNormalisation(kind="calibrated", window=_percentile_window(samples))
    return IntensityNormalisation(kind="percentiles")


def _is_calibrated(sample: VoxelSample) -> bool:
    if sample.modality is not None:
        return sample.modality == "CT"
    return float(sample.values.min()) <= _AIR


def _percentile_window(samples: list[VoxelSample]) -> IntensityWindow:
    values = np.concatenate([sample.values for sample in samples])
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    if not high > low:
        # Nearly all voxels have one value: a tiny object on an even background.
        low, high = float(values.min()), float(values.max())
    high = max(high, low + 1e-6)
    scaled = np.clip((values - low) / (high - low), 0, 1)
    deviation = max(float(scaled.std()), 1e-3)
    return IntensityWindow(
        low=low, high=high, mean=float(scaled.mean()), standard_deviation=deviation
    )
