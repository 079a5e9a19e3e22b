"""A list parameter's value: each change is written to the parameter node at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableSequence
from typing import Any


class ObservedList(MutableSequence):
    """The list, with how to write it and how to read what the node then holds."""

    def __init__(
        self,
        values: list[Any],
        write: Callable[[list[Any]], None],
        read: Callable[[], list[Any]],
    ) -> None:
        self._values = values
        self._write = write
        self._read = read

    def __repr__(self) -> str:
        return f"ObservedList({self._values})"

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, ObservedList) else other)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._values[index] = value
        self._saved()

    def __delitem__(self, index: Any) -> None:
        del self._values[index]
        self._saved()

    def insert(self, index: int, value: Any) -> None:
        self._values.insert(index, value)
        self._saved()

    def extend(self, values: Iterable[Any]) -> None:
        self._values.extend(values)
        self._saved()

    def clear(self) -> None:
        self._values.clear()
        self._saved()

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        self._values.sort(key=key, reverse=reverse)
        self._saved()

    def reverse(self) -> None:
        self._values.reverse()
        self._saved()

    def __add__(self, other: object) -> Any:
        raise NotImplementedError("use += to add to a list parameter")

    def __radd__(self, other: object) -> Any:
        raise NotImplementedError("use += to add to a list parameter")

    def _saved(self) -> None:
        # A refused value leaves the list as the node has it.
        try:
            self._write(self._values)
        finally:
            self._values = self._read()
