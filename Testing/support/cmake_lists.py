"""What the extension's CMake files say, read without CMake: the lists of files and the metadata."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from Testing.support.repository import REPOSITORY

_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_CALL = re.compile(r"^\s*(\w+)\s*\(([^()]*)\)", re.MULTILINE)
_WORD = re.compile(r'"([^"]*)"|(\S+)')
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def calls(path: Path) -> list[tuple[str, list[str]]]:
    """The calls of a CMake file in order: the command in lower case, and its arguments."""
    text = _COMMENT.sub("", path.read_text(encoding="utf-8"))
    return [
        (command.lower(), [quoted or plain for quoted, plain in _WORD.findall(arguments)])
        for command, arguments in _CALL.findall(text)
    ]


def variables(path: Path) -> dict[str, list[str]]:
    """What a CMake file sets, with the names of earlier ones replaced by their values."""
    found: dict[str, list[str]] = {}
    for command, arguments in calls(path):
        if command == "set":
            name, *values = arguments
            found[name] = [_filled_in(value, found) for value in values]
    return found


def _filled_in(value: str, known: dict[str, list[str]]) -> str:
    return _VARIABLE.sub(lambda match: " ".join(known.get(match[1], [match[0]])), value)


def installed_files(root: Path = REPOSITORY) -> dict[str, Path]:
    """Path in the folder of scripted modules -> the file in the source tree that goes there."""
    of_library = variables(root / "SAMFineTuneLib" / "scripts.cmake")
    library = [
        *of_library["SAMFineTuneLib_SCRIPTS"],
        *of_library["SAMFineTuneLib_WEIGHTS"],
        *of_library["SAMFineTuneLib_TYPING"],
    ]
    resources = variables(root / "Resources" / "resources.cmake")["SAMFineTune_RESOURCES"]
    module = variables(root / "SAMFineTune" / "CMakeLists.txt")["MODULE_PYTHON_SCRIPTS"]
    return {
        **{name: root / name for name in [*library, *resources]},
        **{name: root / "SAMFineTune" / name for name in module},
    }


def install(folder: Path, root: Path = REPOSITORY) -> None:
    """Copies the files as an installation of the extension would lay them out."""
    for name, source in installed_files(root).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
