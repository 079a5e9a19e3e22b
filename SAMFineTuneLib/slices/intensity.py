"""Voxel values to the range that the networks expect."""

from __future__ import annotations

from typing import Literal

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


class IntensityNormalisation(BaseModel):
    """How the volumes of a tuned model are normalised.

    `calibrated` images (CT, in Hounsfield units) share one window, found on the examples, so that
    a value means the same tissue in every volume. All others get a window of their own from the
    percentiles of their voxels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["calibrated", "percentiles"]
    window: IntensityWindow | None = None

    def window_for(self, volume: Volume) -> IntensityWindow:
        """The window that applies to `volume`.

        Raises:
            InputError: all voxels have one value.
        """
        if self.window is not None:
            _refuse_constant(_sample(volume.array))
            return self.window
        return _percentile_window([volume])


def find_normalisation(volumes: list[Volume]) -> IntensityNormalisation:
    """The normalisation that fits the example volumes.

    Raises:
        InputError: a volume in which all voxels have one value.
    """
    for volume in volumes:
        _refuse_constant(_sample(volume.array))
    if all(_is_calibrated(volume) for volume in volumes):
        return IntensityNormalisation(kind="calibrated", window=_percentile_window(volumes))
    return IntensityNormalisation(kind="percentiles")


def _is_calibrated(volume: Volume) -> bool:
    return volume.modality == "CT" or float(volume.array.min()) <= _AIR


def _percentile_window(volumes: list[Volume]) -> IntensityWindow:
    values = np.concatenate([_sample(volume.array) for volume in volumes])
    _refuse_constant(values)
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    if not high > low:
        # Nearly all voxels have one value: a tiny object on an even background.
        low, high = float(values.min()), float(values.max())
    scaled = np.clip((values - low) / (high - low), 0, 1)
    deviation = max(float(scaled.std()), 1e-3)
    return IntensityWindow(
        low=low, high=high, mean=float(scaled.mean()), standard_deviation=deviation
    )


def _sample(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // _SAMPLE)].astype(np.float32)


def _refuse_constant(values: np.ndarray) -> None:
    if values.size == 0 or float(values.min()) == float(values.max()):
        raise InputError(
            "the volume has the same value in every voxel",
            "check that the right file was chosen and that it was exported whole",
            code="constant_image",
        )
