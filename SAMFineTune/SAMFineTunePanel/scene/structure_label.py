"""What the segments of one structure share: number, name, colour and terminology."""

from __future__ import annotations

from dataclasses import dataclass

_UNNAMED = "Segment_{value}"


@dataclass(frozen=True)
class StructureLabel:
    """A structure to learn: segments of one name, whichever segmentations they are in."""

    value: int
    name: str
    colour: tuple[float, float, float]
    terminology: str


def structureName(value: int, name: str) -> str:
    """What the segment of a structure is called; models that were not tuned in Slicer may have no names."""
    return name.strip() or _UNNAMED.format(value=value)
