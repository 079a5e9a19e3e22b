"""Geometries of small volumes, and labelmaps on them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import Geometry, Labelmap

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
PLAIN = Geometry((7, 6, 5), (0.8, 1.2, 3.0), (-11.5, 20.25, 7.0), IDENTITY)
CUBE = Geometry((40, 30, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
# What a liver is, as 3D Slicer writes it into a segment's tags.
LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".mhd")


def oblique_direction(degrees: tuple[float, float, float] = (20.0, -35.0, 10.0)) -> tuple:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return tuple(float(value) for value in matrix.ravel())


OBLIQUE = Geometry((7, 6, 5), (0.8, 1.2, 3.0), (-11.5, 20.25, 7.0), oblique_direction())


def random_labelmap(geometry: Geometry, seed: int = 0) -> Labelmap:
    values = np.random.default_rng(seed).integers(0, 4, geometry.shape)
    return Labelmap(values.astype(np.uint8), geometry)


def reoriented(labelmap: Labelmap, order: tuple[int, ...], flips: tuple[bool, ...]) -> Labelmap:
    """The same voxels at the same places, with permuted and flipped index axes."""
    old = labelmap.geometry
    array = labelmap.array.transpose(2, 1, 0).transpose(order)
    affine = old.affine[:, [*order, 3]]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
            array = np.flip(array, axis)
    spacing = tuple(old.spacing[axis] for axis in order)
    direction = (affine[:3, :3] / spacing).ravel()
    geometry = Geometry(array.shape, spacing, tuple(affine[:3, 3]), tuple(direction))
    return Labelmap(np.ascontiguousarray(array.transpose(2, 1, 0)), geometry)


def refused(action, *arguments, **named) -> InputError:
    """The InputError that a call raises, checked to be one clean line with a remedy."""
    with pytest.raises(InputError) as caught:
        action(*arguments, **named)
    text = str(caught.value)
    assert "\n" not in text and "ITK" not in text and "0x" not in text
    assert caught.value.remedy
    return caught.value


ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]
