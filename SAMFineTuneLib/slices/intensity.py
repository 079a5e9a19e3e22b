"""Voxel values to the range that the networks expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from SAMFineTuneLib.errors import InputError

if TYPE_CHECKING:
    from SAMFineTuneLib.volumes import Volume

# Air in Hounsfield units; only calibrated CT has voxels that low.
_AIR = -900
_PERCENTILES = (0.5, 99.5)
# Percentiles need no more voxels than this, and a volume can have a billion.
_SAMPLE = 2_000_000
_KNOTS = 65
_EQUALISED = 0.5


class IntensityWindow(BaseModel):
    """Values to grey levels from 0 to 1, by a rising curve between `low` and `high`.

    Attributes:
        low: value that becomes 0, as do those below.
        high: value that becomes 1, as do those above.
        curve: grey levels at evenly spaced values from `low` to `high`.
        mean: of the grey levels of the voxels that the window was made from.
        standard_deviation: likewise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    high: float
    curve: tuple[float, ...] = (0.0, 1.0)
    mean: float
    standard_deviation: float

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels of any type and shape to float32 grey levels, 0 to 1."""
        return _levels(pixels, self.low, self.high, self.curve)


def _levels(pixels: np.ndarray, low: float, high: float, curve: tuple[float, ...]) -> np.ndarray:
    # Whole numbers far from zero are one and the same in single precision.
    scaled = (pixels.astype(np.float64) - low) / (high - low)
    levels: np.ndarray = np.interp(scaled, np.linspace(0, 1, len(curve)), curve)
    return levels.astype(np.float32)


class VoxelSample(NamedTuple):
    """Evenly spread voxels of a volume, which outlive it in memory, and its modality."""

    values: np.ndarray
    modality: str | None


def sample_voxels(volume: Volume) -> VoxelSample:
    """At most about two million voxels, float64.

    Raises:
        InputError: all voxels have one value.
    """
    flat = volume.array.reshape(-1)
    # Sides are often powers of two: an even stride would see a few columns of each slice only.
    values = flat[:: max(1, flat.size // _SAMPLE) | 1].astype(np.float64)
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
    curve = _curve(values, low, high)
    levels = _levels(values, low, high, curve)
    return IntensityWindow(
        low=low,
        high=high,
        curve=curve,
        mean=float(levels.mean()),
        standard_deviation=max(float(levels.std()), 1e-3),
    )


def _curve(values: np.ndarray, low: float, high: float) -> tuple[float, ...]:
    """Half a straight line, half the share of voxels below: contrast where there are voxels.

    A straight line alone leaves the soft tissues of a CT within a twentieth of the grey levels,
    because it spends the others on air and bone; full equalisation would blow up noise.
    """
    knots = np.linspace(low, high, _KNOTS)
    inside = np.sort(values[(values > low) & (values < high)])
    if not len(inside):
        return tuple(np.linspace(0, 1, _KNOTS).tolist())
    shares = np.searchsorted(inside, knots) / len(inside)
    curve = (1 - _EQUALISED) * np.linspace(0, 1, _KNOTS) + _EQUALISED * shares
    return tuple(np.round(curve, 4).tolist())
