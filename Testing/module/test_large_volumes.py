"""Slicer stays alive while a large volume goes to the worker and its result comes back.

The worker is a pretended one, which reads the volume and writes a result of its size: what a
network does meanwhile does not hold up Slicer.
"""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support import job_workers
from Testing.support.heartbeat import Heartbeat
from Testing.support.scene_builders import add_segmentation, add_volume, placement

pytestmark = pytest.mark.usefixtures("module", "scene")

# 100 MB of int16: a CT of the trunk at 1.5 mm.
SHAPE = (200, 512, 512)
LABELLED = (40, 80, 100, 120, 160)
# Longer than this, a window feels frozen; in seconds.
LONGEST_HOLD_UP = 0.1


@pytest.fixture
def logic(module, scene):
    from SAMFineTune import SAMFineTuneLogic

    logic = SAMFineTuneLogic()
    yield logic
    logic.cleanup()


def trunk():
    """A volume with a large and a small structure, both labelled on five slices."""
    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = ((k - 100) / 90) ** 2 + ((j - 256) / 180) ** 2 + ((i - 256) / 200) ** 2 < 1
    organ = ((k - 100) / 70) ** 2 + ((j - 220) / 60) ** 2 + ((i - 200) / 80) ** 2 < 1
    array = np.random.default_rng(0).integers(-30, 30, SHAPE, dtype=np.int16)
    array[~body] -= 1000
    array[organ] += 120
    volume = add_volume(array, placement((0.8, 0.8, 1.5)), "Trunk")
    shown = np.zeros(SHAPE[0], bool)
    shown[list(LABELLED)] = True
    return volume, {
        "body": body & ~organ & shown[:, None, None],
        "organ": organ & shown[:, None, None],
    }


@pytest.mark.alone
def test_slicer_is_never_held_up(logic, process_events, monkeypatch):
    from SAMFineTunePanel.worker.library_parts import importLibraryParts

    job_workers.pretend(monkeypatch)
    volume, segments = trunk()
    labels = add_segmentation(volume, segments)
    logic.addExample(volume, labels)
    # As the panel does when it is shown, before a job starts.
    logic.exampleSlices(logic.getParameterNode().examples[0])
    importLibraryParts()
    beat = Heartbeat()
    job = logic.fineTune(volume, labels, steps=10, inputSize=256, weights="random", blocking=False)
    process_events(lambda: job.isFinished, 120)
    fine_tune = beat.stop()
    assert job.state == "done", job.errorMessage
    beat = Heartbeat()
    job = logic.apply(job.result, volume, uncertainty=True, blocking=False)
    process_events(lambda: job.isFinished, 120)
    apply = beat.stop()
    assert job.state == "done", job.errorMessage
    print(f"longest hold-up: fine-tune {fine_tune * 1000:.0f} ms, apply {apply * 1000:.0f} ms")
    assert fine_tune < LONGEST_HOLD_UP and apply < LONGEST_HOLD_UP
