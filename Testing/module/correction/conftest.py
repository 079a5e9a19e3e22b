"""Fixtures for tests of corrections: a scene, and a session that a pretended worker serves."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.corrected_scene import OBLIQUE, SHAPE, segment_id
from Testing.support.correction_workers import pretend, session_folders, wait_until_idle
from Testing.support.scene_builders import (
    add_segmentation,
    add_transform,
    add_volume,
    box,
    placement,
)


@pytest.fixture
def nodes(module, scene):
    """An oblique volume under a transform, and a segmentation with a block and a neighbour."""
    generator = np.random.default_rng(5)
    volume = add_volume(generator.integers(0, 900, SHAPE).astype(np.int16), OBLIQUE)
    add_transform(placement((1, 1, 1), (0, 1, 0), 8.0, (5.0, 6.0, 7.0)), volume)
    masks = {
        "liver": box(SHAPE, (3, 5), (10, 20), (10, 20)),
        "cyst": box(SHAPE, (0, 9), (30, 36), (30, 36)),
    }
    return volume, add_segmentation(volume, masks)


@pytest.fixture
def correction(module, scene):
    from SAMFineTunePanel.correction.correction import Correction

    correction = Correction()
    yield correction
    correction.endForClosing()
    assert session_folders() == []


@pytest.fixture
def opened(correction, nodes, monkeypatch, process_events):
    """A session on the liver, served by a pretended worker."""

    def opened(behaviour: str = "well", **arguments):
        pretend(monkeypatch, behaviour)
        correction.open(*nodes, segment_id(nodes[1], "liver"), **arguments)
        wait_until_idle(correction, process_events)
        return correction

    return opened


@pytest.fixture
def settle(correction, process_events):
    return lambda: wait_until_idle(correction, process_events)


@pytest.fixture
def slice_views(layout_manager):
    import slicer

    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    yield
    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUp3DView)
