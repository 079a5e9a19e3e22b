"""Volumes of every geometry, and examples made of them, for tests that write a scene's files."""

from __future__ import annotations

import numpy as np

from Testing.support.scene_builders import placement, rotation

SHAPE = (10, 16, 20)
LIVER = {"k": (3, 7), "j": (5, 12), "i": (4, 15)}
FLIP = np.diag([-1.0, 1.0, 1.0, 1.0])
GEOMETRIES = {
    "plain": placement(),
    "anisotropic": placement((0.7, 0.9, 5.0), origin=(12.0, -30.0, 40.0)),
    "oblique": placement((1.5, 1.0, 3.0), (1, 2, 3), 25, (5.0, 6.0, 7.0)),
    "left-handed": FLIP @ placement((1.0, 2.0, 3.0), (0, 1, 1), 15),
    "sagittal": placement((1.0, 1.0, 4.0), (1, 1, 1), 120),
}
TURN = rotation((0.3, 1, 0.2), 40)
TURN[:3, 3] = [100.0, -5.0, 3.0]


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 1000, SHAPE).astype(np.int16)


def exported(examples, folder):
    """The written volumes and labelmaps as the worker reads them."""
    from SAMFineTunePanel.examples.example_export import FinetuneInputs, structureLabels
    from SAMFineTunePanel.examples.example_slices import PaintedSlices

    from SAMFineTuneLib.volumes import read_labelmap, read_volume

    inputs = FinetuneInputs(examples, folder, PaintedSlices(), structureLabels(examples))
    for _ in inputs.steps():
        pass
    return [
        (entry, read_volume(entry["volume"]), read_labelmap(entry["segmentation"], empty_ok=True))
        for entry in inputs.written
    ]


def example(volume, segmentation, **fields):
    from SAMFineTunePanel.parameter_node import Example

    return Example(volume=volume, segmentation=segmentation, **fields)
