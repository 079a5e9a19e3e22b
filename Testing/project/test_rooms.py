"""The rooms of the library and of the panel: imports between them go one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from Testing.support.repository import REPOSITORY

LIBRARY = REPOSITORY / "SAMFineTuneLib"
PANEL = REPOSITORY / "SAMFineTune" / "SAMFineTunePanel"
ARCHITECTURE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")


def rooms_of(package: Path) -> list[str]:
    return sorted(each.parent.name for each in package.glob("*/__init__.py"))


def imported(path: Path, package: str) -> Iterator[str]:
    """Full names of what a file imports from its package, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(package):
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.startswith(package))


def arrows(package: Path) -> dict[str, set[str]]:
    """Room -> other rooms that its files import from."""
    rooms = rooms_of(package)
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for room in rooms:
        for path in (package / room).rglob("*.py"):
            parts = (name.split(".") for name in imported(path, package.name))
            found[room] |= {each[1] for each in parts if len(each) > 1 and each[1] in rooms}
        found[room].discard(room)
    return found


@pytest.mark.parametrize("package", [LIBRARY, PANEL], ids=["library", "panel"])
def test_no_two_rooms_import_each_other_in_a_circle(package: Path) -> None:
    left = arrows(package)
    assert len(left) > 8
    while left:
        lowest = {room for room, others in left.items() if not others & left.keys()}
        assert lowest, f"these import each other in a circle: {left}"
        left = {room: others for room, others in left.items() if room not in lowest}


@pytest.mark.parametrize("package", [LIBRARY, PANEL], ids=["library", "panel"])
def test_every_room_is_explained(package: Path) -> None:
    missing = [room for room in rooms_of(package) if f"`{room}`" not in ARCHITECTURE]
    assert missing == []


def test_files_that_the_documents_name_are_there() -> None:
    """Paths in backquotes; those that begin at a room are sought in both packages."""
    for document in (*(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "CONTRIBUTING.md"):
        text = document.read_text(encoding="utf-8")
        names = {word for word in text.split("`")[1::2] if word.endswith(".py") and "/" in word}
        for name in names:
            if "your" in name:
                continue
            places = [base / name for base in (REPOSITORY, PANEL.parent, LIBRARY, PANEL)]
            assert any(place.is_file() for place in places), f"{document.name} names {name}"
