"""Qt properties for the host's widgets that take only the type that C++ declares."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Property

STRINGS = "QStringList"
_ACCEPTED: dict[Any, Any] = {
    bool: bool,
    int: int,
    float: (int, float),
    str: str,
    STRINGS: (list, tuple),
}


def checked_property(
    kind: Any, read: Callable[[Any], Any], write: Callable[[Any, Any], None] | None = None
) -> Property:
    """A property of `kind`; a value of another type raises AttributeError, as in PythonQt."""
    # Qt cannot name the enums of PySide6's classes or ours.
    qt_type = object if isinstance(kind, enum.EnumMeta) else kind
    if write is None:
        return Property(qt_type, read)

    def write_checked(self: Any, value: Any) -> None:
        if not isinstance(value, _ACCEPTED.get(kind, kind)) or (
            kind == STRINGS and not all(isinstance(one, str) for one in value)
        ):
            raise AttributeError(
                f"Property of type '{kind}' does not accept an object of type "
                f"{type(value).__name__} ({value!r})"
            )
        write(self, value)

    return Property(qt_type, read, write_checked)


def stored_property(
    name: str, kind: Any, default: Any, then: Callable[[Any], None] | None = None
) -> Property:
    """A property that is only kept, under `_name`; `then` is called after each change."""
    key = "_" + name

    def read(self: Any) -> Any:
        return self.__dict__.get(key, default)

    def write(self: Any, value: Any) -> None:
        value = list(value) if kind == STRINGS else value
        if read(self) != value:
            self.__dict__[key] = value
            if then is not None:
                then(self)

    return checked_property(kind, read, write)
