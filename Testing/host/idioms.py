"""Finds PySide6's ways of speaking in a module's source, which PythonQt does not understand.

Only what the host cannot notice while the code runs: PySide6 takes these without a word.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import qt


def foreign_idioms(path: Path) -> list[str]:
    """One line for each place, with its file and line number."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return [f"{path.name}:{line}: {words}" for line, words in _found(tree)]


def _found(tree: ast.Module) -> Iterator[tuple[int, str]]:
    lists_of_classes = _names_of_qt(tree)
    for node in ast.walk(tree):
        if _asks_for_qt_class(node, lists_of_classes):
            yield node.lineno, "isinstance(): Qt's classes are not derived from each other"
        if isinstance(node, ast.Attribute):
            names = _dotted(node)
            if len(names) == 4 and _is_enum(names):
                yield node.lineno, f"{'.'.join(names)}: enum values are attributes of the class"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "exec":
                yield node.lineno, "exec(): Slicer with Qt 5 has exec_()"
        elif isinstance(node, ast.ImportFrom | ast.Import):
            for name in [*(a.name for a in node.names), getattr(node, "module", None) or ""]:
                if name.partition(".")[0] in ("PySide6", "PySide2", "PyQt5", "PythonQt"):
                    yield node.lineno, f"{name}: only `import qt` and `import ctk` are Slicer's"


def _asks_for_qt_class(node: ast.AST, lists_of_classes: set[str]) -> TypeGuard[ast.Call]:
    """PythonQt tells a class's own objects only: a QSpinBox is no QAbstractSpinBox to it."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and any(
            isinstance(part, ast.Name) and part.id in {"qt", "ctk", *lists_of_classes}
            for part in ast.walk(node.args[1])
        )
    )


def _names_of_qt(tree: ast.Module) -> set[str]:
    """Names that a file gives to classes of Qt."""
    return {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(part, ast.Name) and part.id == "qt" for part in ast.walk(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _dotted(node: ast.expr) -> list[str]:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def _is_enum(names: list[str]) -> bool:
    """Whether this is qt.QFrame.Shape.NoFrame rather than qt.QFrame.NoFrame."""
    owner = getattr(qt, names[1], None) if names[0] == "qt" else None
    return isinstance(getattr(owner, names[2], None), enum.EnumMeta)
