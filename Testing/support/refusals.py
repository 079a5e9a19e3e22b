"""Where the library refuses an input: every `InputError` in its source, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter

from Testing.support.repository import LIBRARY


@dataclass(frozen=True)
class Refusal:
    """One call of `InputError`.

    Attributes:
        place: file, relative to the library, and line.
        remedy: the expression of the remedy; None where there is none.
        code: the code, where it stands there as a text; "" where it is a name or a parameter.
        has_code: whether any code is given.
        facts: names of the facts.
    """

    place: str
    remedy: ast.expr | None
    code: str
    has_code: bool
    facts: frozenset[str]


def library_files() -> list[Path]:
    """The library's modules, without those of the shell and of the demonstration that uses it."""
    return [
        path
        for path in sorted(LIBRARY.rglob("*.py"))
        if path.relative_to(LIBRARY).parts[0] not in ("cli", "demo")
    ]


@cache
def refusals() -> tuple[Refusal, ...]:
    """All calls of `InputError` in these modules."""
    return tuple(
        _refusal(f"{path.relative_to(LIBRARY)}:{node.lineno}", node)
        for path in library_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "InputError"
    )


def texts(tree: ast.AST) -> Iterator[str]:
    """The texts in a piece of source, those of f-strings in pieces; docstrings are left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    for node in constants:
        if isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def facts_in(sentence: str) -> set[str]:
    """The names in braces of a remedy."""
    return {name for _, name, _, _ in Formatter().parse(sentence) if name}


def _refusal(place: str, call: ast.Call) -> Refusal:
    named = {each.arg: each.value for each in call.keywords if each.arg}
    given = dict(zip(("message", "remedy", "code"), call.args, strict=False)) | named
    code = given.get("code")
    return Refusal(
        place,
        given.get("remedy"),
        code.value if isinstance(code, ast.Constant) and isinstance(code.value, str) else "",
        code is not None,
        frozenset(named) - {"message", "remedy", "code"},
    )
