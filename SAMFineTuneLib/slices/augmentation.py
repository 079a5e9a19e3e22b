"""Augmentation: random changes to a labelled slice after which its labels still hold.

Geometry: rotation, scale, shear, shift and a smooth elastic displacement. They are applied together
with the mapping to the model's square, so that a slice is interpolated only once. There are no
flips, because a mirrored right kidney is a left kidney. Intensity: colour jitter and a random
histogram curve, as in the recipe of the published study (Gu et al., MELBA 2025:006), with noise and
blur, by MONAI. In calibrated images (CT) a grey level stands for a tissue, so changes are small.
The channels of a colour image change together, with a slight tint; the images of a case that has
several change independently, because scanners do not vary their contrasts together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandHistogramShift,
    RandScaleIntensity,
    RandShiftIntensity,
)
from torch import Tensor
from torch.nn import functional

from SAMFineTuneLib.slices.intensity import IntensityNormalisation
from SAMFineTuneLib.slices.square import square_positions

# Control points of the elastic displacement along each side of the square.
_ELASTIC_POINTS = 6


@dataclass(frozen=True)
class GeometricRange:
    """Standard deviations of the random geometry.

    Attributes:
        rotation: degrees.
        scale: of the logarithm of the scale.
        stretch: of the logarithm of the ratio of the two scales.
        shear: tangent of the shear angle.
        shift: share of the square's side.
        elastic: displacement of a control point, share of the square's side.
    """

    rotation: float = 9.0
    scale: float = 0.12
    stretch: float = 0.05
    shear: float = 0.03
    shift: float = 0.03
    elastic: float = 0.015


class SliceAugmentation:
    """Draws an augmentation from a seed, so that it can be drawn again.

    Args:
        size: side of the square in pixels.
        geometry: standard deviations of the changes of geometry.
        normalisation: of the images, which says what kind they are; None for grey images whose
            intensities are not calibrated.
        changes_of: makes the changes of the levels of an image of a kind.
    """

    def __init__(
        self,
        size: int,
        geometry: GeometricRange | None = None,
        normalisation: IntensityNormalisation | None = None,
        changes_of: Callable[[str], Compose] | None = None,
    ) -> None:
        self.size = size
        self.geometry = geometry or GeometricRange()
        self._positions = square_positions(size)
        images = [normalisation, *normalisation.further] if normalisation else []
        made = changes_of or _changes_of
        self._changes = [made(each.kind) for each in images] or [made("percentiles")]

    def positions(self, seed: int) -> Tensor:
        """Displaced positions (S, S, 2) on the square, to sample instead of the regular ones."""
        generator = torch.Generator().manual_seed(seed)
        positions = self._positions @ self._random_matrix(generator).T
        positions = positions + self._normal(generator, 2) * 2 * self.geometry.shift
        points = torch.randn(1, 2, _ELASTIC_POINTS, _ELASTIC_POINTS, generator=generator)
        elastic = functional.interpolate(
            points, size=(self.size, self.size), mode="bicubic", align_corners=False
        )
        return positions + elastic[0].permute(1, 2, 0) * 2 * self.geometry.elastic

    def intensity(self, image: Tensor, seed: int) -> Tensor:
        """Image (S, S) or (channels, S, S), with values around 0 to 1, changed in its levels."""
        if len(self._changes) == 1:
            return _changed(image.reshape(-1, *image.shape[-2:]), self._changes[0], seed).reshape(
                image.shape
            )
        pairs = zip(image[:, None], self._changes, strict=True)
        parts = [_changed(part, own, seed + number) for number, (part, own) in enumerate(pairs)]
        return torch.cat(parts)

    def _random_matrix(self, generator: torch.Generator) -> Tensor:
        turn, scale, stretch, shear = self._normal(generator, 4).tolist()
        angle = math.radians(turn * self.geometry.rotation)
        scale = math.exp(scale * self.geometry.scale)
        stretch = math.exp(stretch * self.geometry.stretch / 2)
        rotation = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        shape = torch.tensor(
            [[scale * stretch, shear * self.geometry.shear], [0.0, scale / stretch]]
        )
        return rotation @ shape

    @staticmethod
    def _normal(generator: torch.Generator, count: int) -> Tensor:
        return torch.randn(count, generator=generator)


def usual_augmentation(size: int, normalisation: IntensityNormalisation) -> SliceAugmentation:
    """All changes that this module knows."""
    return SliceAugmentation(size, normalisation=normalisation)


def augmentation_by_four(size: int, normalisation: IntensityNormalisation) -> SliceAugmentation:
    """The four changes of LoRaMedNet: rotation, elastic displacement, noise and brightness.

    (Hu et al., AAAI 2024.) How large they are is not said there; they are as large as usual here.
    """
    geometry = GeometricRange(scale=0.0, stretch=0.0, shear=0.0, shift=0.0)
    return SliceAugmentation(size, geometry, normalisation, _noise_and_brightness)


def _noise_and_brightness(kind: str) -> Compose:
    offsets, deviation = (0.04, 0.03) if kind == "calibrated" else (0.1, 0.05)
    return Compose(
        [
            RandShiftIntensity(offsets=offsets, prob=0.7),
            RandGaussianNoise(prob=0.7 if kind == "calibrated" else 0.5, std=deviation),
        ]
    )


def _changed(image: Tensor, changes: Compose, seed: int) -> Tensor:
    """The image (channels, S, S) after random changes."""
    changes.set_random_state(seed=seed % 2**32)
    return torch.as_tensor(changes(image)).as_subclass(Tensor)


def _changes_of(kind: str) -> Compose:
    if kind == "calibrated":
        return _calibrated_changes()
    if kind == "colour":
        tint = RandScaleIntensity(factors=0.1, prob=0.5, channel_wise=True)
        return Compose([*_uncalibrated_changes().transforms, tint])
    return _uncalibrated_changes()


def _calibrated_changes() -> Compose:
    return Compose(
        [
            RandScaleIntensity(factors=0.15, prob=0.7),
            RandShiftIntensity(offsets=0.04, prob=0.7),
            RandGaussianNoise(prob=0.7, std=0.03),
        ]
    )


def _uncalibrated_changes() -> Compose:
    return Compose(
        [
            RandHistogramShift(num_control_points=(4, 8), prob=0.3),
            RandAdjustContrast(prob=0.3, gamma=(0.7, 1.4)),
            RandScaleIntensity(factors=0.2, prob=0.7),
            RandShiftIntensity(offsets=0.1, prob=0.7),
            RandGaussianSmooth(sigma_x=(0.5, 1.2), sigma_y=(0.5, 1.2), prob=0.2),
            RandGaussianNoise(prob=0.5, std=0.05),
        ]
    )
