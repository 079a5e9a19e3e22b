"""Opens the module's panel with the demonstration's head, or writes a picture of it.

    python -m Testing.host.open_panel [--screenshot FILE]

On a desktop the window stays open; without one, or with --screenshot, a picture is written.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .boot import boot

_MODULE = Path(__file__).resolve().parents[2] / "SAMFineTune" / "SAMFineTune.py"


def has_desktop() -> bool:
    """Whether windows can be opened."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _desktop_platform() -> str:
    if sys.platform in ("win32", "darwin"):
        return "windows" if sys.platform == "win32" else "cocoa"
    return "xcb" if os.environ.get("DISPLAY") else "wayland"


def _use_empty_folders() -> None:
    """So that a picture shows none of the person's own models and interrupted jobs."""
    for name in ("SAMFINETUNE_CACHE", "SAMFINETUNE_MODELS"):
        os.environ.setdefault(name, tempfile.mkdtemp(prefix=name.lower()))


def _wait_for_hardware(logic: Any) -> None:
    from .desktop import settle

    end = time.monotonic() + 30
    while logic.hardware is None and time.monotonic() < end:
        settle(1)
        time.sleep(0.05)


def open_panel() -> Any:
    """The main window with the panel; the head is an example whose slices are partly labelled."""
    from .desktop import main_window
    from .module_container import load_module

    module = load_module(_MODULE)
    boot(views=True).app.startupCompleted.emit()
    window = main_window(module)
    from SAMFineTunePanel.scene.sample_data import loadSampleHead

    volume, segmentation = loadSampleHead()
    module.widgetRepresentation().self().logic.addExample(volume, segmentation)
    return window


def main() -> int:
    """Runs the command; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--screenshot", type=Path, help="write a picture to this file and end")
    arguments = parser.parse_args()
    interactive = arguments.screenshot is None and has_desktop()
    if interactive:
        os.environ.setdefault("QT_QPA_PLATFORM", _desktop_platform())
    else:
        _use_empty_folders()
    slicer = boot(views=True, interactive=interactive)
    window = open_panel()
    if interactive:
        return int(slicer.app.exec())
    _wait_for_hardware(slicer.modules.SAMFineTuneWidget.logic)
    target = arguments.screenshot or Path(tempfile.gettempdir()) / "SAMFineTune_panel.png"
    print(window.screenshot(target).resolve())
    slicer.app._close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
