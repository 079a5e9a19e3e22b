"""Coded terms that describe a segment, from 3D Slicer's terminology entry.

An entry has seven parts with "~" between them: the context, then category, type and type modifier,
the anatomical context, then region and region modifier. A code is written "scheme^value^meaning"
(Slicer developer guide, "Terminologies").
"""

from __future__ import annotations

from typing import NamedTuple

# The term that Slicer gives to every new segment: its code in SNOMED CT and in the older SNOMED RT.
_TISSUE = {("SCT", "85756007"), ("SRT", "T-D0050")}
_TYPE, _TYPE_MODIFIER, _REGION, _REGION_MODIFIER = 2, 3, 5, 6


class Code(NamedTuple):
    """One code: the scheme that defines it, its value, and its meaning."""

    scheme: str
    value: str
    meaning: str

    def is_same(self, other: Code) -> bool:
        """Whether both have the same meaning; codes of two schemes are compared by their text."""
        if self.scheme == other.scheme:
            return self.value == other.value
        return self.meaning.casefold() == other.meaning.casefold()

    def contradicts(self, other: Code) -> bool:
        """Whether both are of one scheme but differ; codes of two schemes do not contradict."""
        return self.scheme == other.scheme and not self.is_same(other)


class CodedTerm(NamedTuple):
    """The codes that identify a structure: type, region and their modifiers."""

    kind: Code
    kind_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None

    @property
    def text(self) -> str:
        """The meanings, such as "Kidney, Right"."""
        return ", ".join(each.meaning or each.value for each in self if each is not None)

    def is_same(self, other: CodedTerm) -> bool:
        """Whether all parts have the same meaning."""
        return all(
            mine is None if theirs is None else mine is not None and mine.is_same(theirs)
            for mine, theirs in zip(self, other, strict=True)
        )

    def contradicts(self, other: CodedTerm) -> bool:
        """Whether a part that both have contradicts."""
        return any(
            mine is not None and theirs is not None and mine.contradicts(theirs)
            for mine, theirs in zip(self, other, strict=True)
        )


def coded_term(entry: str) -> CodedTerm | None:
    """The term of a terminology entry; None if it does not describe the structure."""
    parts = entry.split("~")
    codes = [_code(part) for part in parts] + [None] * 7
    kind = codes[_TYPE]
    if kind is None or len(parts) <= _TYPE:
        return None
    if (kind.scheme, kind.value) in _TISSUE and codes[_REGION] is None:
        return None
    return CodedTerm(kind, codes[_TYPE_MODIFIER], codes[_REGION], codes[_REGION_MODIFIER])


def _code(part: str) -> Code | None:
    fields = [each.strip() for each in part.split("^")]
    if len(fields) != 3 or not fields[1]:
        return None
    return Code(*fields)
