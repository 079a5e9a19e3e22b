"""Small volumes with structures that a network can learn in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from SAMFineTuneLib.volumes import Geometry, Labelmap, Volume, write_labelmap, write_volume

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def geometry_of(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float] = (1.0, 1.0, 3.0),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    direction: tuple[float, ...] = IDENTITY,
) -> Geometry:
    """Grid of an array of `shape` (k, j, i); the spacing is that of i, j, k."""
    return Geometry((shape[2], shape[1], shape[0]), spacing, origin, tuple(direction))  # type: ignore[arg-type]


def head(
    shape: tuple[int, int, int] = (12, 48, 48),
    values: tuple[int, int] = (5, 52),
    seed: int = 0,
    centre: tuple[float, float] = (0.0, 0.0),
) -> tuple[Volume, Labelmap]:
    """A bright ellipsoid and a dark one in a grey cylinder, with noise; they end before the top.

    Args:
        shape: (k, j, i).
        values: label of the bright and of the dark ellipsoid.
        seed: of the noise.
        centre: how far the structures are moved along rows and columns, share of the half side.
    """
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    y, x = y - centre[0], x - centre[1]
    image = np.where(x**2 + y**2 < 0.8, 300.0, 0.0)
    bright = (x + 0.35) ** 2 / 0.1 + y**2 / 0.16 + z**2 / 0.7 < 1
    dark = (x - 0.35) ** 2 / 0.08 + (y - 0.1) ** 2 / 0.08 + z**2 / 0.6 < 1
    image[bright], image[dark] = 700.0, 80.0
    image += np.random.default_rng(seed).normal(0, 25, shape)
    labels = np.zeros(shape, np.uint8)
    labels[bright], labels[dark] = values
    geometry = geometry_of(shape)
    names = {values[0]: "bright", values[1]: "dark"}
    colours = {values[0]: (1.0, 0.0, 0.0), values[1]: (0.0, 0.0, 1.0)}
    return Volume(image.astype(np.float32), geometry), Labelmap(labels, geometry, names, colours)


def keep_slices(labelmap: Labelmap, numbers: list[int], axis: int = 0) -> Labelmap:
    """The labelmap with all but some of its slices cleared, as clinicians label."""
    kept = np.zeros_like(labelmap.array)
    chosen: list[slice | list[int]] = [slice(None)] * 3
    chosen[axis] = numbers
    kept[tuple(chosen)] = labelmap.array[tuple(chosen)]
    return replace(labelmap, array=kept)


def write_pair(folder: Path, volume: Volume, labelmap: Labelmap, name: str) -> tuple[Path, Path]:
    """Files NAME.nii.gz and NAME_labels.nrrd in `folder`."""
    paths = folder / f"{name}.nii.gz", folder / f"{name}_labels.nrrd"
    write_volume(paths[0], volume.array, volume.geometry)
    write_labelmap(paths[1], labelmap)
    return paths


def dsc(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice similarity of two boolean arrays."""
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))
