"""Names and coded terms of labels as a text within a picture that this program writes.

PNG and TIFF have room for a text; without it a label of a picture has no name but its colour. The
text is one JSON object: label -> {"name": ..., "terminology": ...}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

# The keyword of the text in PNG. In TIFF, whose description has no keyword, the object has it.
KEYWORD = "Segments"


class SegmentText(NamedTuple):
    """Names and terminology entries by label."""

    names: dict[int, str]
    terminologies: dict[int, str]


def segment_text(names: Mapping[int, str], terminologies: Mapping[int, str]) -> str:
    """The text for labels with a name or a term; "" if there are none."""
    told: dict[str, dict[str, str]] = {}
    for kind, texts in (("name", names), ("terminology", terminologies)):
        for label, text in texts.items():
            if text:
                told.setdefault(str(label), {})[kind] = text
    return json.dumps({KEYWORD: told}) if told else ""


def told_by(text: object) -> SegmentText | None:
    """What a text says of labels; None for any other text."""
    if not isinstance(text, str) or KEYWORD not in text:
        return None
    try:
        told = json.loads(text)[KEYWORD]
        found = {int(label): dict(parts) for label, parts in told.items() if int(label) > 0}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None
    names = {label: str(each["name"]) for label, each in found.items() if "name" in each}
    terms = {
        label: str(each["terminology"]) for label, each in found.items() if "terminology" in each
    }
    return SegmentText(names, terms)
