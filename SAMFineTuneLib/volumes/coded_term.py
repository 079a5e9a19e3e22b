"""What a segment is in coded terms, as 3D Slicer writes it into a terminology entry.

An entry has seven parts with "~" between them: the context, then category, type and type modifier,
the anatomical context, then region and region modifier. A code is written "scheme^value^meaning"
(Slicer developer guide, "Terminologies").
"""

from __future__ import annotations

from typing import NamedTuple

# What Slicer gives to every new segment: SNOMED CT's code, and that of the older SNOMED RT.
_TISSUE = {("SCT", "85756007"), ("SRT", "T-D0050")}
_TYPE, _TYPE_MODIFIER, _REGION, _REGION_MODIFIER = 2, 3, 5, 6


class Code(NamedTuple):
    """One code: who defines it, its value, and its meaning in words."""

    scheme: str
    value: str
    meaning: str

    def is_same(self, other: Code) -> bool:
        """Whether both say the same; old and new codes of one meaning do."""
        if self.scheme == other.scheme:
            return self.value == other.value
        return self.meaning.casefold() == other.meaning.casefold()

    def contradicts(self, other: Code) -> bool:
        """Whether the same scheme says something else; codes of two schemes are not compared."""
        return self.scheme == other.scheme and not self.is_same(other)


class CodedTerm(NamedTuple):
    """The codes that tell a structure from others: type, region and their modifiers."""

    kind: Code
    kind_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None

    @property
    def words(self) -> str:
        """The meanings, such as "Kidney, Right"."""
        return ", ".join(each.meaning or each.value for each in self if each is not None)

    def is_same(self, other: CodedTerm) -> bool:
        """Whether all parts say the same."""
        return all(
            mine is None if theirs is None else mine is not None and mine.is_same(theirs)
            for mine, theirs in zip(self, other, strict=True)
        )

    def contradicts(self, other: CodedTerm) -> bool:
        """Whether a part that both have says something else."""
        return any(
            mine is not None and theirs is not None and mine.contradicts(theirs)
            for mine, theirs in zip(self, other, strict=True)
        )


def coded_term(entry: str) -> CodedTerm | None:
    """The term of a terminology entry; None where it tells nothing about the structure."""
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
