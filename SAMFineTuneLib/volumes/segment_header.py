"""Names, colours and terms of segments in the header of an NRRD file of 3D Slicer.

Slicer writes one group of fields for each segment: `Segment0_LabelValue`, `Segment0_Name`,
`Segment0_Color` ("red green blue", 0 to 1), `Segment0_Tags` ("name:value|name:value|"; the tag
`TerminologyEntry` describes the segment in coded terms) and others (Slicer user guide,
"Segmentations"). `Segment0_Layer` is the number of the layer, one of several 3-D images, in which
the segment lies; without it a segment lies in the layer of its own number. Fields of the whole file
begin with `Segmentation_`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.labelmap import Colour, Labelmap

_FIELD = re.compile(r"Segment(\d+)_(LabelValue|Name|Color|Layer|Tags)")

_TERMINOLOGY = "TerminologyEntry"

# Slicer calls the representation "master" in files and "source" elsewhere.
_REPRESENTATIONS = ("Segmentation_MasterRepresentation", "Segmentation_SourceRepresentation")
_FRACTIONAL = "Fractional labelmap"

# Only files from before Slicer 4.6 have this field: the first and last index along i, j, k of the
# voxels that are stored.
_OLD_EXTENT = "Segmentation_Extent"

# Colours for labels without a colour: easy to distinguish, the first ones like Slicer's generic
# colours.
_COLOURS: tuple[Colour, ...] = (
    (0.50, 0.68, 0.50),
    (0.95, 0.84, 0.57),
    (0.69, 0.48, 0.40),
    (0.44, 0.72, 0.82),
    (0.85, 0.40, 0.31),
    (0.87, 0.51, 0.40),
    (0.56, 0.93, 0.56),
    (0.75, 0.40, 0.34),
    (0.86, 0.96, 0.08),
    (0.30, 0.25, 0.00),
)


class SegmentHeader(NamedTuple):
    """What a header says of its segments: label -> name, colour, terminology entry."""

    names: dict[int, str]
    colours: dict[int, Colour]
    terminologies: dict[int, str]


class SegmentEntry(NamedTuple):
    """What a header says of one segment.

    Attributes:
        value: the value of its voxels in its layer; None if the file gives none.
        layer: the number of the layer in which it lies.
        name: its name, "" if the file gives none.
        colour: red, green, blue from 0 to 1; None if the file gives none.
        terminology: its terminology entry, "" if it has none.
    """

    value: int | None
    layer: int
    name: str
    colour: Colour | None
    terminology: str


def segment_entries(header: Mapping[str, str]) -> list[SegmentEntry]:
    """The segments in the order of the file, without those whose label value is not above 0."""
    groups: dict[int, dict[str, str]] = {}
    for key, value in header.items():
        match = _FIELD.fullmatch(key)
        if match:
            groups.setdefault(int(match[1]), {})[match[2]] = value.strip()
    entries = []
    for index, group in sorted(groups.items()):
        told, layer = group.get("LabelValue"), group.get("Layer", "")
        if told is not None and not (told.isdecimal() and int(told) > 0):
            continue
        entries.append(
            SegmentEntry(
                None if told is None else int(told),
                int(layer) if layer.isdecimal() else index,
                group.get("Name", ""),
                _colour(group.get("Color", "")),
                _terminology(group.get("Tags", "")),
            )
        )
    return entries


def segments(header: Mapping[str, str]) -> SegmentHeader:
    """What the header of a file with one layer says; empty if the file has no segments.

    A file without label values holds one segment in each layer, which has the label 1.
    """
    told = SegmentHeader({}, {}, {})
    for entry in segment_entries(header):
        if entry.value is None and entry.layer > 0:
            continue
        tell(told, entry.value or 1, entry)
    return told


def tell(told: SegmentHeader, label: int, entry: SegmentEntry) -> None:
    """Add the content of an entry, for a label."""
    if entry.name:
        told.names[label] = entry.name
    if entry.colour is not None:
        told.colours[label] = entry.colour
    if entry.terminology:
        told.terminologies[label] = entry.terminology


def is_fractional(header: Mapping[str, str]) -> bool:
    """Whether voxel values are the shares that a segment fills, and not label values."""
    return any(header.get(key, "").strip() == _FRACTIONAL for key in _REPRESENTATIONS)


def moved_by_old_extent(geometry: Geometry, header: Mapping[str, str]) -> Geometry:
    """The geometry of a file's voxels, moved if the header has the field of old files.

    Files from before Slicer 4.6 hold a part of a larger grid, and the origin of the larger grid.
    Newer files do not have this field and hold the origin of the part itself.
    """
    parts = header.get(_OLD_EXTENT, "").split()
    if len(parts) != 6 or not all(part.removeprefix("-").isdecimal() for part in parts):
        return geometry
    first = np.array([int(parts[0]), int(parts[2]), int(parts[4]), 1])
    x, y, z = (float(value) for value in (geometry.affine @ first)[:3])
    return replace(geometry, origin=(x, y, z))


def segment_fields(labelmap: Labelmap) -> dict[str, str]:
    """The header fields with which Slicer shows every label as a named, coloured segment."""
    fields = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    extents = _extents(labelmap.array)
    labels = sorted({*extents, *labelmap.names} - {0})
    for number, label in enumerate(labels):
        colour = colour_of(labelmap, label)
        # A line break would end the header field.
        name = " ".join(labelmap.names.get(label, f"Segment_{label}").split())
        fields |= {
            f"Segment{number}_ID": f"Segment_{label}",
            f"Segment{number}_Name": name,
            f"Segment{number}_NameAutoGenerated": "0",
            f"Segment{number}_Color": " ".join(f"{part:.6g}" for part in colour),
            f"Segment{number}_ColorAutoGenerated": "0",
            f"Segment{number}_LabelValue": str(label),
            f"Segment{number}_Layer": "0",
            f"Segment{number}_Extent": extents.get(label, "0 -1 0 -1 0 -1"),
            f"Segment{number}_Tags": _tags(labelmap.terminologies.get(label, "")),
        }
    return fields


def colour_of(labelmap: Labelmap, label: int) -> Colour:
    """The colour in which a label is shown: its own, or one of a list of distinct colours."""
    return labelmap.colours.get(label, _COLOURS[(label - 1) % len(_COLOURS)])


def _colour(text: str) -> Colour | None:
    parts = text.split()
    try:
        values = [min(max(float(part), 0.0), 1.0) for part in parts]
    except ValueError:
        return None
    known = len(values) == 3 and all(map(math.isfinite, values))
    return (values[0], values[1], values[2]) if known else None


def _terminology(tags: str) -> str:
    for tag in tags.split("|"):
        name, _, value = tag.partition(":")
        if name.strip() == _TERMINOLOGY:
            return value.strip()
    return ""


def _tags(terminology: str) -> str:
    # A bar would end the tag, and a line break the header field; coded terms contain neither.
    value = " ".join(terminology.replace("|", " ").split())
    return f"{_TERMINOLOGY}:{value}|" if value else "|"


def _extents(array: NDArray[Any]) -> dict[int, str]:
    """Label -> first and last index along i, j, k of the voxels that have it."""
    boxes: dict[int, list[int]] = {}
    for k, part in enumerate(array):
        rows, columns = np.nonzero(part)
        if not rows.size:
            continue
        values = part[rows, columns]
        for label in np.unique(values):
            chosen = values == label
            j, i = rows[chosen], columns[chosen]
            box = [int(i.min()), int(i.max()), int(j.min()), int(j.max()), k, k]
            old = boxes.get(int(label), box)
            low = [min(old[n], box[n]) for n in (0, 2, 4)]
            high = [max(old[n], box[n]) for n in (1, 3, 5)]
            boxes[int(label)] = [low[0], high[0], low[1], high[1], low[2], high[2]]
    return {label: " ".join(map(str, box)) for label, box in boxes.items()}
