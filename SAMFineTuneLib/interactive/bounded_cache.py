"""A cache in memory that drops the items used longest ago when it grows too large."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Keeps values by key, as long as they do not take too many bytes together.

    Args:
        most_bytes: the most bytes that all values together may take.
        bytes_of: returns the size of a value in bytes.
        fewest: this many values are kept, however large they are.

    Attributes:
        most_bytes: as above.
        used_bytes: the bytes that the values take together.
        largest: the bytes of the largest value that was ever kept.
    """

    def __init__(self, most_bytes: int, bytes_of: Callable[[Value], int], fewest: int = 1) -> None:
        self.most_bytes = most_bytes
        self.used_bytes = self.largest = 0
        self._bytes_of = bytes_of
        self._fewest = fewest
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def get(self, key: Key) -> Value | None:
        """The value of a key, which counts as used now; None if it is not kept."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, and drop those used longest ago if all together are too large."""
        self._drop(key)
        self._values[key] = value
        size = self._bytes_of(value)
        self.used_bytes += size
        self.largest = max(self.largest, size)
        while self.used_bytes > self.most_bytes and len(self._values) > self._fewest:
            self._drop(next(iter(self._values)))

    def _drop(self, key: Key) -> None:
        if key in self._values:
            self.used_bytes -= self._bytes_of(self._values.pop(key))
