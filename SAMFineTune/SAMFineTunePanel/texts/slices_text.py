"""How several slices are named in a sentence."""

from __future__ import annotations

from slicer.i18n import tr as _


def slicesText(numbers: list[int]) -> str:
    """Sorted numbers of slices, as "slice 4" or "5 slices from 1 to 7"."""
    if len(numbers) == 1:
        return _("slice {number}").format(number=numbers[0])
    return _("{count} slices from {first} to {last}").format(count=len(numbers), first=numbers[0], last=numbers[-1])
