"""Voxel values to the range that the networks expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from SAMFineTuneLib.errors import InputError

if TYPE_CHECKING:
    from SAMFineTuneLib.volumes import Volume

# In Hounsfield units: air and lung, what hardly any tissue has, and as far above water as air and
# lung are below it.
_AIR = -900
_LOW, _BETWEEN, _OPPOSITE = (-1100, -600), (-600, -300), (600, 1100)
# Air and lung are a peak of their own: so many times as many voxels a unit as elsewhere.
_PEAK = 1.1
# Share of voxels below air that reconstruction and metal leave in a CT, beside the padding.
_BELOW_AIR = 0.02
_PERCENTILES = (0.5, 99.5)
# Part of the window by which numbers of one value may differ through rounding in other units.
_ROUNDING = 1e-9
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
    low, high = flat.min(), flat.max()
    if low == high:
        raise InputError(
            "the volume has the same value in every voxel",
            "check that the right file was chosen and that it was exported whole",
            code="constant_image",
        )
    if values.min() == values.max():
        # The few voxels that differ lie between those that were taken.
        values = np.append(values, [float(low), float(high)])
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
    return _looks_like_ct(sample.values)


def _looks_like_ct(values: np.ndarray) -> bool:
    """Whether voxels are Hounsfield units, by what sets CT apart from other images of both signs.

    Air and lung are a peak of their own, with hardly a voxel between them and fat, and nothing is
    darker than air but the padding, which is one value. In a difference of images, a phase or a
    velocity, values get rarer away from zero, to both sides alike, or go on beyond.
    """
    lowest = values.min()
    # Padding is drawn around what was scanned, in one value below air.
    inside = values[values > lowest] if lowest < _LOW[0] else values
    if not inside.size or inside.min() > _AIR or np.mean(inside < _LOW[0]) > _BELOW_AIR:
        return False
    air = _density(inside, *_LOW)
    return air > _PEAK * max(_density(inside, *_BETWEEN), _density(inside, *_OPPOSITE))


def _density(values: np.ndarray, low: float, high: float) -> float:
    """Share of the voxels from `low` up to `high`, for each unit."""
    return float(np.mean((values >= low) & (values < high))) / (high - low)


def _percentile_window(samples: list[VoxelSample]) -> IntensityWindow:
    values = np.concatenate([sample.values for sample in samples])
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    if not high > low:
        # Nearly all voxels have one value: a tiny object on an even background.
        low, high = float(values.min()), float(values.max())
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
    knots = np.linspace(0, 1, _KNOTS)
    inside = np.sort((values[(values > low) & (values < high)] - low) / (high - low))
    if not len(inside):
        return tuple(knots.tolist())
    # Many voxels may lie on a knot: in all units they count as not below it.
    shares = np.searchsorted(inside, knots - _ROUNDING) / len(inside)
    curve = (1 - _EQUALISED) * knots + _EQUALISED * shares
    return tuple(np.round(curve, 4).tolist())
