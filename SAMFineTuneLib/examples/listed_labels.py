"""One number for each structure of a list, whose masks may number their structures differently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from SAMFineTuneLib.volumes.label_matching import NamedLabel
from SAMFineTuneLib.volumes.labelmap import Colour


class ListedLabels:
    """The structures that the masks of a list have shown so far.

    Labels of one name are one structure, as in masks in colour, each of which numbers the colours
    that it shows. A label without a name is the structure of its number.

    Attributes:
        names: number of a structure -> its name.
        colours: number of a structure -> its colour.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.colours: dict[int, Colour] = {}
        self._by_name: dict[str, int] = {}

    def numbers(
        self, shown: Iterable[int], names: Mapping[int, str], colours: Mapping[int, Colour]
    ) -> dict[int, int]:
        """The number of each structure that the next mask shows, by its number in this mask.

        Args:
            shown: the numbers that the mask shows.
            names: of its labels, by number.
            colours: of its labels, by number.
        """
        found = {}
        for value in sorted(shown):
            name = names.get(value, "")
            own = NamedLabel(value, name).own_name
            number = self._number(value, own) if own else value
            found[value] = number
            if own:
                self._by_name[own] = number
                self.names.setdefault(number, name)
            if value in colours:
                self.colours.setdefault(number, colours[value])
        return found

    def _number(self, value: int, own: str) -> int:
        if own in self._by_name:
            return self._by_name[own]
        taken = set(self._by_name.values())
        return value if value not in taken else max(taken) + 1
