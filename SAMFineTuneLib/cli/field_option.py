"""Makes options from the fields of a job: name, type, choices, default and help."""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from SAMFineTuneLib.cli.arguments import (
    names_of_labels,
    number_or,
    numbers_or,
    option_name,
)
from SAMFineTuneLib.files import path_from_text


def add_field(
    group: argparse._ActionsContainer,
    model: type[BaseModel],
    field: str,
    more: str = "",
    told: Mapping[str, str] | None = None,
    **settings: Any,
) -> None:
    """Add the option of a field; its value is found under the field's name.

    Args:
        group: a parser, or a group of its options.
        model: the record, such as `FinetuneJob`.
        field: name of the field.
        more: text that is added to the field's description in the help.
        told: the meaning of each choice of the field, for the help.
        settings: arguments of `add_argument` that replace those from the field.
    """
    info = model.model_fields[field]
    chosen = {"dest": field, **_reading(info.annotation), **_default(info), **settings}
    if "help" not in settings:
        chosen["help"] = _help(info, more, told or {}, chosen.get("default"))
    if chosen.get("action") == "store_true":
        chosen.pop("default", None)
    group.add_argument(option_name(field), **chosen)


def chosen_fields(chosen: argparse.Namespace, model: type[BaseModel]) -> dict[str, Any]:
    """The values of a record's fields from the options; fields without a value are left out."""
    return {
        name: getattr(chosen, name)
        for name in model.model_fields
        if getattr(chosen, name, None) is not None
    }


def _reading(annotation: Any) -> dict[str, Any]:
    """The arguments of `add_argument` with which a value of this type is read."""
    keywords, kinds = _split(annotation)
    if not kinds:
        return {"choices": keywords}
    (kind,) = kinds
    origin = get_origin(kind)
    if kind is bool:
        return {"action": "store_true"}
    if origin is dict:
        return {"type": names_of_labels}
    if origin is tuple:
        return {"type": get_args(kind)[0], "nargs": len(get_args(kind))}
    if origin is list:
        (item,) = get_args(kind)
        return {"type": numbers_or(*keywords)} if item is int else _reading_of_each(item)
    return {"type": number_or(*keywords) if keywords else _reader(kind)}


def _reading_of_each(item: Any) -> dict[str, Any]:
    """The same for a list, for which the option is repeated with each item."""
    _, (kind,) = _split(item)
    return {"type": _reader(kind), "action": "append"}


def _reader(kind: Any) -> Any:
    return path_from_text if kind is Path else kind


def _split(annotation: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The keywords that a value may be, and the other types that it may have."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _split(get_args(annotation)[0])
    if origin is Literal:
        return get_args(annotation), ()
    if origin not in (Union, types.UnionType):
        return (), () if annotation is type(None) else (annotation,)
    parts = [_split(each) for each in get_args(annotation)]
    keywords = [keyword for part in parts for keyword in part[0]]
    return tuple(keywords), tuple(kind for part in parts for kind in part[1])


def _default(info: FieldInfo) -> dict[str, Any]:
    if info.is_required():
        return {"required": True}
    return {"default": info.get_default(call_default_factory=True)}


def _help(info: FieldInfo, more: str, told: Mapping[str, str], default: Any) -> str:
    text = re.sub(r"`(\w+)`", lambda found: option_name(found[1]), info.description or "")
    if told:
        text += ": " + "; ".join(f"{word}, {meaning}" for word, meaning in told.items())
    text += more
    # None, False and empty values are not shown, but the seed 0 is.
    if default or type(default) is int:
        shown = ",".join(default) if isinstance(default, list) else default
        text += f" (default: {shown})"
    return text.replace("%", "%%")
