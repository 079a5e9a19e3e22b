"""Changes of the scene that the code makes itself, and that its own observers leave alone."""

from __future__ import annotations


class OwnChanges:
    """A context in which changes are made; observers ask `areMade` before they act."""

    def __init__(self) -> None:
        self._depth = 0

    @property
    def areMade(self) -> bool:
        """Whether changes are being made now."""
        return self._depth > 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *failure: object) -> None:
        self._depth -= 1
