"""Values as one line of strict JSON: no NaN, no numpy types, any file name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from SAMFineTuneLib.files import written_whole


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text of a value: numbers that are not finite become null, paths text, arrays lists.

    Args:
        value: dictionaries, lists, numbers, texts, paths, pydantic models, numpy arrays.
        indent: number of spaces for each level; None puts everything on one line.

    Raises:
        TypeError: something in the value has no form in JSON.
    """
    text = json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)
    # JSON allows these characters inside a text, but many readers take them for a line end.
    for character in "\x85\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # A file name that is not valid Unicode holds lone surrogates, which are valid JSON if escaped.
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON in UTF-8; the file appears whole or not at all.

    Raises:
        OSError: the file cannot be written.
        TypeError: something in the value has no form in JSON.
    """
    text = to_json(value, indent=2) + "\n"
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no form in JSON")
