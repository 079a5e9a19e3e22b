"""How soon Slicer answers: it is never held up while others work, and the panel opens at once.

These are measured times, so nothing else runs beside this file. Where what a network does is of no
account, a pretended worker reads the images and writes results of their size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from Testing.support import correction_workers, job_workers
from Testing.support.heartbeat import LONGEST_HOLD_UP, Heartbeat
from Testing.support.own_process import run_script
from Testing.support.processor_speed import slowness
from Testing.support.scene_builders import add_segmentation, add_volume, box, placement
from Testing.support.time_limits import PATIENCE_S, require_faster, within

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("module", "scene")]

# 100 MB of int16: a CT of the trunk at 1.5 mm.
SHAPE = (200, 512, 512)
LABELLED = (40, 80, 100, 120, 160)

OPEN_THE_PANEL = """
import sys, time
from Testing.host import boot, errors, load_module
slicer = boot()
started = time.monotonic()
container = load_module(sys.argv[1])
widget = container.widgetRepresentation()
widget.show()
widget.enter()
took = time.monotonic() - started
panel = widget.self().panel
longest = 0.0
while not panel.isReady:
    turn = time.monotonic()
    slicer.app.processEvents()
    longest = max(longest, time.monotonic() - turn)
filled = time.monotonic() - started
heavy = {"torch", "monai", "SimpleITK", "pooch", "requests", "pydicom", "nibabel"}
loaded = sorted(heavy & set(sys.modules))
print(took, filled, longest, errors, loaded)
widget.exit()
slicer.app.lastWindowAboutToClose.emit()
slicer.app.aboutToQuit.emit()
"""


def trunk() -> tuple[Any, dict[str, np.ndarray]]:
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


def test_the_panel_opens_within_a_second_without_torch() -> None:
    """Then it fills itself without holding Slicer up; one import is the longest wait."""
    printed = run_script(OPEN_THE_PANEL)
    *times, errors, loaded = printed.strip().splitlines()[-1].split(" ")
    assert [errors, loaded] == ["[]", "[]"]
    took, filled, longest = (float(each) / slowness() for each in times)
    require_faster(took, 1.0, "opening the panel")
    require_faster(filled, 2.0, "filling the panel")
    require_faster(longest, 0.25, "the longest hold-up meanwhile")


def test_a_real_fine_tune_answers_soon_and_is_gone_soon(
    panel: Any, logic: Any, layout_manager: Any, process_events: Callable[..., None]
) -> None:
    """Progress comes within ten seconds; a cancel takes less than three and leaves nothing.

    Meanwhile Slicer is never held up, although the panel, its picture and its chart come into view.
    """
    from SAMFineTunePanel.module_test import labelSlices, makeVolume

    from SAMFineTuneLib.jobs.folder import jobs_folder

    volume, truth = makeVolume()
    labels = labelSlices(volume, truth)
    fine_tune = panel.panel.fineTune.ui

    panel.exit()
    process_events()
    beat = Heartbeat()
    started = time.monotonic()
    # So few steps that a validation, which brings a picture, comes after each of the first.
    job = logic.fineTune(volume, labels, steps=60, inputSize=256, weights="random", blocking=False)
    process_events(lambda: job.step > 0)
    first, starting = time.monotonic() - started, beat.longest
    # A view that is shown for the first time takes longer, whatever is in it.
    panel.enter()
    fine_tune.chartButton.click()
    process_events(lambda: fine_tune.previewLabel.visible and len(job.losses) > 1)
    beat.forget()
    step = job.step
    process_events(lambda: job.step > step + 3)
    assert job.etaSeconds > 0 and job.losses and job.state == "running"
    assert fine_tune.progressBar.visible and fine_tune.statusLabel.text.startswith("Step")

    worker = psutil.Process(job.processID)
    processes = [worker, *worker.children(recursive=True)]
    with within(3, "cancelling"):
        QTest.mouseClick(fine_tune.cancelButton, Qt.MouseButton.LeftButton)
        process_events(lambda: job.isFinished)
        psutil.wait_procs(processes, timeout=PATIENCE_S)
    later = beat.stop()
    assert not any(each.is_running() for each in processes)
    assert job.state == "cancelled" and not job.resumable
    assert fine_tune.statusLabel.text == "Cancelled."
    assert list(jobs_folder().iterdir()) == [] and logic.models() == []
    require_faster(first / slowness(), 10, "the first progress")
    require_faster(starting, LONGEST_HOLD_UP, "the longest hold-up at the start")
    require_faster(later, LONGEST_HOLD_UP, "the longest hold-up later")


def test_jobs_with_a_large_volume(
    logic: Any, process_events: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it goes to the worker and its result comes back."""
    from SAMFineTunePanel.worker.library_parts import importingLibraryParts

    job_workers.pretend(monkeypatch)
    volume, segments = trunk()
    labels = add_segmentation(volume, segments)
    logic.addExample(volume, labels)
    # As the panel does when it is shown, before a job starts.
    logic.exampleSlices(logic.getParameterNode().examples[0])
    list(importingLibraryParts())

    beat = Heartbeat()
    job = logic.fineTune(volume, labels, steps=10, inputSize=256, weights="random", blocking=False)
    process_events(lambda: job.isFinished)
    fine_tune = beat.stop()
    assert job.state == "done", job.errorMessage
    beat = Heartbeat()
    job = logic.apply(job.result, volume, uncertainty=True, blocking=False)
    process_events(lambda: job.isFinished)
    apply = beat.stop()
    assert job.state == "done", job.errorMessage
    require_faster(fine_tune, LONGEST_HOLD_UP, "the longest hold-up while it is learnt from")
    require_faster(apply, LONGEST_HOLD_UP, "the longest hold-up while it is segmented")


def test_a_correction_reads_a_large_volume(
    process_events: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from SAMFineTunePanel.correction.correction import Correction

    from Testing.support.corrected_scene import ras, segment_id

    correction_workers.pretend(monkeypatch)
    correction = Correction()
    shape = (120, 512, 512)
    volume = add_volume(np.zeros(shape, np.int16), placement())
    segmentation = add_segmentation(volume, {"liver": box(shape, (3, 5), (10, 20), (10, 20))})
    process_events()
    beat = Heartbeat()
    correction.open(volume, segmentation, segment_id(segmentation, "liver"))
    correction_workers.wait_until_idle(correction, process_events)
    for number in (60, 61):
        correction.look(number)
        correction.addPoint(ras(correction, 200, 300, number))
        correction_workers.wait_until_idle(correction, process_events)
    correction.accept()
    require_faster(beat.stop(), 0.25, "the longest hold-up")
    assert correction.session.accepted == {61}
    correction.endForClosing()
    assert correction_workers.session_folders() == []


def test_a_slice_of_a_large_segmentation_is_written_at_once() -> None:
    """About 2 ms; the limit leaves room for a busy machine."""
    from Testing.support.segment_edits import write

    shape = (300, 512, 512)
    volume = add_volume(np.zeros(shape, np.int16), placement())
    segmentation = add_segmentation(volume, {"liver": box(shape, (5, 295), (10, 500), (10, 500))})
    rng = np.random.default_rng(1)
    seconds = []
    for number in range(100, 109):
        mask = np.zeros((1, 512, 512), bool)
        j, i = rng.integers(20, 100, 2)
        mask[0, j : j + 350, i : i + 350] = True
        place = slice(number, number + 1), slice(0, 512), slice(0, 512)
        started = time.perf_counter()
        edit = write(volume, segmentation, mask, place)
        seconds.append(time.perf_counter() - started)
        assert edit.changedVoxels > 100_000
    require_faster(float(np.median(seconds)), 0.06, "writing a slice")
