"""Fixtures for tests of the module's panel and logic, which run in the stand-in host.

`python Testing/run_module_tests.py` runs each file in a process of its own. A run of pytest that
does not name this folder leaves it out, for the host changes the whole process.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from Testing.host import boot, dialogs, errors, load_module
from Testing.support import correction_workers, job_workers
from Testing.support.repository import MODULE
from Testing.support.time_limits import PATIENCE_S

HARDWARE = {
    "processors": 2,
    "memory_bytes": 16_000_000_000,
    "devices": [{"name": "cpu", "description": "x86_64", "memory_bytes": 16_000_000_000}],
    "torch": "2.13.0",
    "problems": [],
    "preset": "laptop",
    "why": "no GPU that torch can use was found",
}


@pytest.fixture(scope="session")
def slicer_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module `slicer` of a started host; nothing of the person's own is read or written."""
    for name in ("SAMFINETUNE_CACHE", "SAMFINETUNE_MODELS"):
        os.environ[name] = str(tmp_path_factory.mktemp(name.lower()))
    yield boot()
    boot().app._close()
    assert not errors, "errors while Slicer closed:\n" + "\n".join(errors)


@pytest.fixture(autouse=True)
def nothing_went_wrong() -> Iterator[None]:
    """Fails a test that leaves an error of a slot, observer, Qt or VTK, or an unused answer."""
    early = list(errors)
    errors.clear()
    assert not early, "errors before the test:\n" + "\n".join(early)
    dialogs.forget()
    yield
    # Qt crashes where a widget that the test has left is collected while an event comes to it.
    gc.disable()
    try:
        boot().app.processEvents()
    finally:
        gc.enable()
    left, unused = list(errors), dialogs.unused_answers()
    errors.clear()
    assert not left, "errors while the test ran:\n" + "\n".join(left)
    assert not unused, f"dialogs that were to be answered have not come: {unused}"


@pytest.fixture
def scene(slicer_app: Any) -> Iterator[Any]:
    """The MRML scene, empty but for what Slicer always has in it."""
    slicer_app.mrmlScene.Clear(0)
    yield slicer_app.mrmlScene
    slicer_app.mrmlScene.Clear(0)


@pytest.fixture(scope="session")
def module(slicer_app: Any) -> Any:
    """The module, loaded as Slicer does when it starts; its panel is not made yet.

    What the panel imports and finds out in the background when it is opened for the first time is
    there already. The walkthrough asks for the hardware as the panel does. Which packages are
    installed, the panel asks each time that it is entered; that does not change meanwhile.
    """
    importlib.metadata.version = functools.cache(importlib.metadata.version)
    container = load_module(MODULE)
    slicer_app.app.startupCompleted.emit()
    from SAMFineTunePanel.worker.library_parts import importingLibraryParts

    list(importingLibraryParts())
    from SAMFineTunePanel.module_state import theModuleState

    theModuleState().hardware.found = dict(HARDWARE)
    return container


@pytest.fixture
def panel(module: Any, scene: Any) -> Iterator[Any]:
    """The module's widget, made once a process as in Slicer, and entered for the test."""
    container = module.widgetRepresentation()
    container.resize(420, 900)
    container.show()
    container.enter()
    yield container.self()
    container.exit()
    container.hide()


@pytest.fixture
def logic(module: Any, scene: Any) -> Iterator[Any]:
    """The module's logic for scripts; what a test leaves of its jobs is ended and deleted."""
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTuneLib.jobs.folder import jobs_folder

    logic = SAMFineTuneLogic()
    yield logic
    if logic.job is not None and not logic.job.isFinished:
        logic.job.cancel()
        logic.job.endForClosing()
    logic.cleanup()
    shutil.rmtree(jobs_folder(), ignore_errors=True)


@pytest.fixture
def pretended_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are told, stopped and brought into the scene as ever, and nothing is learnt."""
    job_workers.pretend(monkeypatch)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done in this process, and corrections by a process, without a network."""
    job_workers.pretend_in_process(monkeypatch)
    correction_workers.pretend(monkeypatch)


@pytest.fixture
def bundle(slicer_app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the panel takes for the starter's weights, there or removed by the test."""
    from SAMFineTuneLib.weights import choice as weights

    monkeypatch.setattr(weights, "_BUNDLE_FOLDER", tmp_path)
    file = tmp_path / "starter.safetensors"
    file.touch()
    return file


@pytest.fixture(scope="session")
def layout_manager(slicer_app: Any) -> Any:
    """Slice, 3-D and plot views that render off-screen."""
    return boot(views=True).app.layoutManager()


@pytest.fixture
def process_events(slicer_app: Any) -> Callable[..., None]:
    """Lets Qt work until a condition holds: `process_events(lambda: job.isFinished)`."""

    def process(until: Callable[[], Any] = lambda: True, timeout_s: float = PATIENCE_S) -> None:
        end = time.monotonic() + timeout_s
        slicer_app.app.processEvents()
        while not until():
            assert time.monotonic() < end, f"still not so after {timeout_s} s"
            slicer_app.app.processEvents()
            time.sleep(0.005)

    return process
