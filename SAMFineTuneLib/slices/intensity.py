"""Intensity windows: mapping voxel values to the levels from 0 to 1 that the networks expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.spec import GreyCurve

if TYPE_CHECKING:
    from SAMFineTuneLib.volumes import Volume

# Ranges in Hounsfield units: that of air and lung, a range that hardly any tissue has, and the
# range as far above water as air and lung are below it.
_AIR = -900
_LOW, _BETWEEN, _OPPOSITE = (-1100, -600), (-600, -300), (600, 1100)
# Smallest ratio of the density of voxels (per unit) in air and lung to that in the other ranges.
_PEAK = 1.1
# Largest share of voxels below air in a CT, beside padding; reconstruction and metal cause them.
_BELOW_AIR = 0.02
_PERCENTILES = (0.5, 99.5)
# Soft tissues in Hounsfield units, level 40 and width 400, as radiologists look at them and as
# MedSAM was trained; and the share of the grey levels that they get in straight lines. The others
# remain for lung and bone. LiteMedSAM, DSC from a jittered and from a tight box: on the CT of the
# pelvis 0.595 and 0.644, with this window alone 0.515 and 0.528, with the curve that is half
# equalised 0.542 and 0.571; on three slices of liver and spine 0.819 and 0.872, 0.862 and 0.903,
# 0.599 and 0.709; on ten organs 0.803 and 0.892, 0.819 and 0.918, 0.753 and 0.857.
_SOFT_TISSUES, _SOFT_LEVELS = (-160.0, 240.0), (0.1, 0.9)
_CT_KNOTS = 129
# Share of the window by which equal values may differ after rounding in other units.
_ROUNDING = 1e-9
# Number of voxels that suffices for percentiles; a volume can have a billion.
_SAMPLE = 2_000_000
_KNOTS = 65
# The brightest values that colour images have with 8, 10, 12 and 16 bits. Cameras of 10 and 12 bits
# store their values in 16.
_WHITES = (255.0, 1023.0, 4095.0, 65535.0)
_EQUALISED = 0.5


class IntensityWindow(BaseModel):
    """Maps values to grey levels from 0 to 1, by an increasing curve between `low` and `high`.

    Attributes:
        low: value that becomes 0, as do all values below.
        high: value that becomes 1, as do all values above.
        curve: grey levels at evenly spaced values from `low` to `high`.
        mean: of the grey levels of the voxels that the window was made from.
        standard_deviation: of the same grey levels.
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


@dataclass(frozen=True)
class ChannelWindows:
    """The windows of an image with several channels, one for each."""

    windows: tuple[IntensityWindow, ...]

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of each window."""
        return tuple(each.mean for each in self.windows)

    @property
    def standard_deviation(self) -> tuple[float, ...]:
        """The standard deviation of each window."""
        return tuple(each.standard_deviation for each in self.windows)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (rows, columns, channels) to float32 levels of this shape, 0 to 1.

        A grey image, (rows, columns), counts as one whose channels are all equal.
        """
        channels = range(len(self.windows))
        parts = [pixels if pixels.ndim == 2 else pixels[..., number] for number in channels]
        levels = [each.apply(part) for each, part in zip(self.windows, parts, strict=True)]
        return np.stack(levels, axis=-1)


PixelWindow = IntensityWindow | ChannelWindows


def _levels(pixels: np.ndarray, low: float, high: float, curve: tuple[float, ...]) -> np.ndarray:
    # Single precision does not distinguish neighbouring whole numbers far from zero.
    scaled = (pixels.astype(np.float64) - low) / (high - low)
    levels: np.ndarray = np.interp(scaled, np.linspace(0, 1, len(curve)), curve)
    return levels.astype(np.float32)


class VoxelSample(NamedTuple):
    """Evenly spread voxels of a volume, which are kept when the volume is released.

    Attributes:
        values: intensities; of a colour image, those of all its channels.
        modality: as that of the volume.
        white: the brightest value that a colour image of this kind can have.
        is_colour: whether the image is in colour.
        further: samples of the second and of further images of the case.
    """

    values: np.ndarray
    modality: str | None
    white: float = _WHITES[0]
    is_colour: bool = False
    further: tuple[VoxelSample, ...] = ()

    @property
    def images(self) -> int:
        """How many images of the case were sampled."""
        return 1 + len(self.further)


def sample_voxels(volume: Volume) -> VoxelSample:
    """A sample of at most about two million voxels of each image, float64.

    Raises:
        InputError: all voxels of an image have one value.
    """
    if volume.images == 1:
        return _sample(volume.array, volume.modality)._replace(is_colour=volume.is_colour)
    modalities = (volume.modality, *volume.further_modalities)
    first, *further = (
        _sample(volume.array[..., channel], modality, f"image {channel + 1} of the case")
        for channel, modality in enumerate(modalities)
    )
    return first._replace(further=tuple(further))


def _sample(array: np.ndarray, modality: str | None, called: str = "the volume") -> VoxelSample:
    flat = array.reshape(-1)
    # Sides are often powers of two, so an even stride would take voxels of a few columns only.
    values = flat[:: max(1, flat.size // _SAMPLE) | 1].astype(np.float64)
    low, high = flat.min(), flat.max()
    if low == high:
        raise InputError(
            f"{called} has the same value in every voxel",
            "Check that the right file was chosen and that it was exported whole",
            code="constant_image",
        )
    if values.min() == values.max():
        # The few voxels with other values are not in the sample.
        values = np.append(values, [float(low), float(high)])
    return VoxelSample(values, modality, _white(float(high)))


def _white(brightest: float) -> float:
    """The value of white in a colour image whose brightest value this is."""
    if 0 < brightest <= 1:
        return 1.0
    return next((each for each in _WHITES if brightest <= each), brightest)


class IntensityNormalisation(BaseModel):
    """How the volumes of a tuned model are normalised.

    Volumes of `calibrated` images (CT, in Hounsfield units) share one window, found on the
    examples, so that a value stands for the same tissue in every volume. Each volume of other
    images gets a window of its own from the percentiles of its voxels. Values of `colour` images
    keep their proportions: black is 0 and white is 1 in all three channels.

    Attributes:
        kind: as above.
        window: of calibrated images.
        further: how the second and further images of a case are normalised.
        curve: how grey levels rise within a window; "equalised" as `_curve` says, "straight" in
            straight lines: one, or three for calibrated images, as `_ct_window` says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["calibrated", "percentiles", "colour"]
    window: IntensityWindow | None = None
    further: tuple[IntensityNormalisation, ...] = ()
    curve: GreyCurve = "equalised"

    @property
    def images(self) -> int:
        """How many images a case has; one in colour counts as one."""
        return 1 + len(self.further)

    def window_for(self, sample: VoxelSample) -> PixelWindow:
        """The window of the volume that a sample was taken from.

        Raises:
            ValueError: the volume has another number of images.
        """
        if sample.images != self.images:
            raise ValueError(f"{sample.images} images, where {self.images} were learnt from")
        if self.kind == "colour":
            return ChannelWindows((_colour_window(sample),) * 3)
        images, samples = (self, *self.further), (sample, *sample.further)
        windows = tuple(
            image.window or _percentile_window([own], image.curve)
            for image, own in zip(images, samples, strict=True)
        )
        return windows[0] if len(windows) == 1 else ChannelWindows(windows)


def find_normalisation(
    samples: Sequence[VoxelSample], curve: GreyCurve = "equalised"
) -> IntensityNormalisation:
    """The normalisation that fits the example volumes, which have equally many images.

    Args:
        samples: of the volumes.
        curve: that of the backbone.
    """
    if any(sample.is_colour for sample in samples):
        return IntensityNormalisation(kind="colour")
    first = _grey_normalisation(samples, curve)
    images = zip(*(sample.further for sample in samples), strict=True)
    further = tuple(_grey_normalisation(each, curve) for each in images)
    return first.model_copy(update={"further": further})


def _grey_normalisation(samples: Sequence[VoxelSample], curve: GreyCurve) -> IntensityNormalisation:
    if not all(_is_calibrated(sample) for sample in samples):
        return IntensityNormalisation(kind="percentiles", curve=curve)
    if curve == "straight":
        window = _ct_window(_values(samples))
    else:
        window = _percentile_window(samples, curve)
    return IntensityNormalisation(kind="calibrated", window=window, curve=curve)


def _is_calibrated(sample: VoxelSample) -> bool:
    if sample.modality is not None:
        return sample.modality == "CT"
    return _looks_like_ct(sample.values)


def _looks_like_ct(values: np.ndarray) -> bool:
    """Whether voxels are Hounsfield units, and not those of other images with negative values.

    In a CT, air and lung form a peak of their own, with hardly a voxel between them and fat, and
    only the padding, which is one value, is below air. In a difference of images, a phase or a
    velocity, values become rarer away from zero on both sides alike, or there are values beyond
    those of air.
    """
    lowest = values.min()
    # Padding surrounds the scanned region, with one value below air.
    inside = values[values > lowest] if lowest < _LOW[0] else values
    if not inside.size or inside.min() > _AIR or np.mean(inside < _LOW[0]) > _BELOW_AIR:
        return False
    air = _density(inside, *_LOW)
    return air > _PEAK * max(_density(inside, *_BETWEEN), _density(inside, *_OPPOSITE))


def _density(values: np.ndarray, low: float, high: float) -> float:
    """Share of the voxels from `low` up to `high`, divided by the width of this range."""
    return float(np.mean((values >= low) & (values < high))) / (high - low)


def _colour_window(sample: VoxelSample) -> IntensityWindow:
    """The window of each channel, with the mean and the deviation of all of them together."""
    levels = _levels(sample.values, 0.0, sample.white, (0.0, 1.0))
    return IntensityWindow(
        low=0.0,
        high=sample.white,
        mean=float(levels.mean()),
        standard_deviation=max(float(levels.std()), 1e-3),
    )


def _values(samples: Sequence[VoxelSample]) -> np.ndarray:
    return np.concatenate([sample.values for sample in samples])


def _percentile_window(samples: Sequence[VoxelSample], curve: GreyCurve) -> IntensityWindow:
    values = _values(samples)
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    if not high > low:
        # Nearly all voxels have one value, as with a tiny object on a uniform background.
        low, high = float(values.min()), float(values.max())
    return _window(values, low, high, curve)


def _ct_window(values: np.ndarray) -> IntensityWindow:
    """Three straight lines: one over soft tissues, the others beside it as far as percentiles."""
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    low, high = min(low, _SOFT_TISSUES[0] - 40), max(high, _SOFT_TISSUES[1] + 60)
    at = np.linspace(low, high, _CT_KNOTS)
    levels = np.interp(at, (low, *_SOFT_TISSUES, high), (0.0, *_SOFT_LEVELS, 1.0))
    return _described(values, low, high, tuple(np.round(levels, 4).tolist()))


def _window(values: np.ndarray, low: float, high: float, curve: GreyCurve) -> IntensityWindow:
    straight = curve == "straight"
    return _described(values, low, high, (0.0, 1.0) if straight else _curve(values, low, high))


def _described(
    values: np.ndarray, low: float, high: float, rising: tuple[float, ...]
) -> IntensityWindow:
    levels = _levels(values, low, high, rising)
    return IntensityWindow(
        low=low,
        high=high,
        curve=rising,
        mean=float(levels.mean()),
        standard_deviation=max(float(levels.std()), 1e-3),
    )


def _curve(values: np.ndarray, low: float, high: float) -> tuple[float, ...]:
    """The mean of a straight line and the cumulative histogram: contrast where voxels are frequent.

    A straight line alone leaves a twentieth of the grey levels for the soft tissues of a CT,
    because the others are used for air and bone; full equalisation would amplify noise.
    """
    knots = np.linspace(0, 1, _KNOTS)
    inside = np.sort((values[(values > low) & (values < high)] - low) / (high - low))
    if not len(inside):
        return tuple(knots.tolist())
    # Many voxels may lie on a knot. Whatever the unit, they count as not below it.
    shares = np.searchsorted(inside, knots - _ROUNDING) / len(inside)
    curve = (1 - _EQUALISED) * knots + _EQUALISED * shares
    return tuple(np.round(curve, 4).tolist())
