"""Converts coded terms and colours of segments between DICOM and 3D Slicer.

3D Slicer's terminology entry has seven parts with "~" between them: the name of a terminology,
category, type, type modifier, the name of an anatomic terminology, region, region modifier. The
coded ones are "scheme^value^meaning" (Slicer's developer guide, "Terminologies").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from SAMFineTuneLib.volumes.labelmap import Colour

_TERMS = "Segmentation category and type - DICOM master list"
_REGIONS = "Anatomic codes - DICOM master list"

# A CIELab colour in DICOM: three 16-bit numbers for L* 0 to 100, a* and b* -128 to 127
# (DICOM part 3, C.10.7.1.1).
_FULL = 65535.0


class Code(NamedTuple):
    """A coded term, such as SCT, 10200004, Liver."""

    scheme: str
    value: str
    meaning: str


class Terms(NamedTuple):
    """The coded terms of a segment: Slicer's terminology entry without names of terminologies."""

    category: Code
    kind: Code
    modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None


# The term for a segment of which nothing is known; Slicer uses it too.
TISSUE = Code("SCT", "85756007", "Tissue")


def terminology_entry(segment: Any) -> str:
    """Slicer's terminology entry for an item of a DICOM segment sequence; "" if it has no terms.

    Args:
        segment: pydicom dataset of the item.
    """
    category = _code(_first(segment, "SegmentedPropertyCategoryCodeSequence"))
    kind_item = _first(segment, "SegmentedPropertyTypeCodeSequence")
    kind = _code(kind_item)
    if category is None or kind is None:
        return ""
    region_item = _first(segment, "AnatomicRegionSequence")
    return entry_of(
        Terms(
            category,
            kind,
            _code(_first(kind_item, "SegmentedPropertyTypeModifierCodeSequence")),
            _code(region_item),
            _code(_first(region_item, "AnatomicRegionModifierSequence")),
        )
    )


def entry_of(terms: Terms) -> str:
    """Slicer's terminology entry for terms."""
    coded = [_text(code) for code in terms]
    return "~".join([_TERMS, *coded[:3], _REGIONS, *coded[3:]])


def terms_of(entry: str) -> Terms | None:
    """The terms of one of Slicer's terminology entries; None if it has no category and type."""
    parts = [*entry.split("~"), *[""] * 7]
    category, kind, modifier, region, region_modifier = (
        _parsed(parts[number]) for number in (1, 2, 3, 5, 6)
    )
    if category is None or kind is None:
        return None
    return Terms(category, kind, modifier, region, region_modifier)


def rgb(lab: Sequence[int], cielab: Any) -> Colour:
    """A DICOM colour as red, green and blue from 0 to 1.

    Args:
        lab: three 16-bit numbers.
        cielab: highdicom's class `CIELabColor`.
    """
    lightness, a, b = (float(value) / _FULL for value in lab)
    red, green, blue = cielab(100 * lightness, 255 * a - 128, 255 * b - 128).to_rgb(clip=True)
    return red / 255, green / 255, blue / 255


def _first(item: Any, name: str) -> Any:
    """The first item of a sequence of a dataset, None if there is none."""
    sequence = item.get(name) if item is not None else None
    return sequence[0] if sequence else None


def _code(item: Any) -> Code | None:
    if item is None:
        return None
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
    if not value:
        return None
    scheme, meaning = item.get("CodingSchemeDesignator"), item.get("CodeMeaning")
    return Code(_plain(scheme), _plain(value), _plain(meaning))


def _plain(value: object) -> str:
    """A value without the characters that separate the parts of a terminology entry and its tag."""
    text = "" if value is None else str(value)
    for mark in "~^|":
        text = text.replace(mark, " ")
    return " ".join(text.split())


def _text(code: Code | None) -> str:
    return "^".join(code) if code else "^^"


def _parsed(text: str) -> Code | None:
    parts = [part.strip() for part in text.split("^")]
    if len(parts) != 3 or not parts[0] or not parts[1]:
        return None
    return Code(parts[0], parts[1], parts[2] or parts[1])
