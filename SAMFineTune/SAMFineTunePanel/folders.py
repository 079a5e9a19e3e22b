"""Where the library and the resources lie: one level up in the source tree, beside the module once installed."""

from __future__ import annotations

import sys
from pathlib import Path

_MODULE_FOLDER = Path(__file__).resolve().parents[1]


def _folderThatHolds(name: str) -> Path:
    for folder in (_MODULE_FOLDER, _MODULE_FOLDER.parent):
        if (folder / name).is_dir():
            return folder
    raise FileNotFoundError(f"{name} is missing: neither in {_MODULE_FOLDER} nor in {_MODULE_FOLDER.parent}")


def libraryFolder() -> Path:
    """The folder to put on Python's path for `import SAMFineTuneLib`."""
    return _folderThatHolds("SAMFineTuneLib")


def resourcePath(name: str) -> str:
    """Absolute path of a file in Resources, such as "UI/SAMFineTuneApplySection.ui"."""
    return str(_folderThatHolds("Resources") / "Resources" / name)


def makeLibraryImportable() -> None:
    """Let Slicer's Python find SAMFineTuneLib; does nothing where it does already."""
    folder = str(libraryFolder())
    if folder not in sys.path:
        sys.path.append(folder)
