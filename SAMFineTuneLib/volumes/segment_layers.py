"""Segmentations of several layers or of fractions, as 3D Slicer writes them, to one labelmap.

Slicer keeps segments that overlap in layers of their own: a 4-D NRRD, its first axis the layers
(the last axis in files from before Slicer 4.6). Until Slicer 4.10 every segment had a layer of its
own, whether or not it overlapped with another. Each layer has label values of its own, so that two
segments may have the same.

Labels here: the first segment in the order of the file that has a label value keeps it; the others,
and those without one, get the numbers that follow the largest label value of the file, in the order
of the file. A file that tells no label values at all has its segments numbered from 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.fractional_segments import more_than_half
from SAMFineTuneLib.volumes.label_values import labels_of
from SAMFineTuneLib.volumes.labelmap import smallest_label_type
from SAMFineTuneLib.volumes.segment_header import (
    SegmentEntry,
    SegmentHeader,
    is_fractional,
    segment_entries,
    tell,
)

_MOST_REMARKS = 3

Box = tuple[slice, ...]


class Flattened(NamedTuple):
    """Segments on one labelmap.

    Attributes:
        array: labels, shape (k, j, i).
        told: label -> name, colour, terminology entry; also of segments without a voxel.
        non_finite: how many voxels were NaN or infinite and became background.
        remarks: what was decided, one sentence each.
    """

    array: NDArray[Any]
    told: SegmentHeader
    non_finite: int
    remarks: tuple[str, ...]


class _Segment(NamedTuple):
    """A segment, and where its voxels are."""

    entry: SegmentEntry
    label: int
    layer: NDArray[Any]
    box: Box

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Its voxels within the box."""
        part = self.layer[self.box]
        value = self.entry.value
        return part != 0 if value is None else part == value

    @property
    def called(self) -> str:
        """What it is called in sentences."""
        return f"'{self.entry.name}'" if self.entry.name else f"label {self.label}"


class _Covered(NamedTuple):
    """Voxels that two segments share."""

    above: _Segment
    below: _Segment
    voxels: int


def has_layers(image: sitk.Image | sitk.ImageFileReader) -> bool:
    """Whether an image, or a header that has been read, is that of segments in several layers."""
    if not any(key.startswith("Segment0_") for key in image.GetMetaDataKeys()):
        return False
    components, size = _components(image), image.GetSize()
    if len(size) == 4 and size[3] > 1:
        return components == 1
    return components > 1 and len(size) == 3


def layers_as_components(image: sitk.Image) -> sitk.Image:
    """The same layers as components of a 3-D image, also where they lie along a fourth axis."""
    if image.GetDimension() == 3:
        return image
    size = [*image.GetSize()[:3], 0]
    collapse = sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOSUBMATRIX
    layers = [
        sitk.Extract(image, size, [0, 0, 0, number], collapse)
        for number in range(image.GetSize()[3])
    ]
    joined = sitk.Compose(layers)
    for key in image.GetMetaDataKeys():
        joined.SetMetaData(key, image.GetMetaData(key))
    return joined


def needs_flattening(array: NDArray[Any], header: Mapping[str, str]) -> bool:
    """Whether a file's voxels are not yet the labels of its segments."""
    return array.ndim == 4 or is_fractional(header)


def flatten(
    path: Path,
    array: NDArray[Any],
    header: Mapping[str, str],
    wanted: Collection[int] | None = None,
    on_top: Sequence[str] = (),
) -> Flattened:
    """One labelmap of the segments in all layers.

    Args:
        path: the file, named in messages.
        array: shape (k, j, i) or (k, j, i, layers).
        header: the file's fields.
        wanted: the labels that will be used; None for all. Where one of them overlaps with a
            segment that is not, it stays whole.
        on_top: names or labels of segments that cover the others where they overlap, the highest
            first. Several in one text may be parted by commas.

    Raises:
        InputError: two segments overlap and neither is to be on top; values that are no labels;
            fractional segments that share a layer.
    """
    layers = array[..., np.newaxis] if array.ndim == 3 else array
    remarks: list[str] = []
    entries = segment_entries(header) or [
        SegmentEntry(None, number, "", None, "") for number in range(layers.shape[-1])
    ]
    if is_fractional(header):
        binary, entries, non_finite = _from_fractions(path, layers, entries, remarks)
    else:
        binary, non_finite = _from_labels(path, layers)
    remarks += _lost(path, binary, entries)
    segments = _numbered(entries, binary, layers.shape[:3])
    told = SegmentHeader({}, {}, {})
    for segment in segments:
        tell(told, segment.label, segment.entry)
    ranks, unknown = _ranks(segments, on_top)
    absent = f"{', '.join(unknown)} is no segment of {path.name}, which has {_listed(segments)}"
    if unknown:
        remarks.append(f"to be on top: {absent}")
    flat, covered = _drawn(segments, layers.shape[:3], wanted, ranks)
    _refuse_undecided(path, covered, wanted, ranks, f" ({absent})" if unknown else "")
    renumbered = [each for each in segments if each.entry.value not in (None, each.label)]
    # What covers a structure that nobody uses is of no interest.
    told_of = [each for each in covered if wanted is None or each.below.label in wanted]
    remarks += _renumbering(path, renumbered) + _covering(path, told_of)
    return Flattened(flat, told, non_finite, tuple(remarks))


def _components(image: sitk.Image | sitk.ImageFileReader) -> int:
    if isinstance(image, sitk.ImageFileReader):
        return int(image.GetNumberOfComponents())
    return int(image.GetNumberOfComponentsPerPixel())


def _from_labels(path: Path, layers: NDArray[Any]) -> tuple[list[NDArray[Any]], int]:
    read = [labels_of(path, layers[..., number]) for number in range(layers.shape[-1])]
    return [array for array, _ in read], sum(count for _, count in read)


def _from_fractions(
    path: Path, layers: NDArray[Any], entries: list[SegmentEntry], remarks: list[str]
) -> tuple[list[NDArray[Any]], list[SegmentEntry], int]:
    """Layers with the label value of their segment where it fills more than half of a voxel."""
    masks, non_finite, remark = more_than_half(path, layers)
    remarks.append(remark)
    used = [entry.layer for entry in entries]
    shared = next((layer for layer in used if used.count(layer) > 1), None)
    if shared is not None:
        raise InputError(
            f"'{path}' has several fractional segments in layer {shared}, which cannot be told "
            "apart",
            "In 3D Slicer, make the binary labelmap its source representation (module "
            "Segmentations, Representations) and save it again",
            code="not_integral",
        )
    values = {entry.layer: entry.value or 1 for entry in entries}
    labelled = [
        mask.astype(smallest_label_type(values.get(number, 1))) * values.get(number, 1)
        for number, mask in enumerate(masks)
    ]
    return labelled, entries, non_finite


def _lost(path: Path, layers: list[NDArray[Any]], entries: list[SegmentEntry]) -> list[str]:
    """What is said of layers, and voxels in them, that belong to no segment of the header."""
    lost = 0
    for number, layer in enumerate(layers):
        here = [entry for entry in entries if entry.layer == number]
        values = [entry.value for entry in here if entry.value is not None]
        if len(values) == len(here):
            lost += int(np.count_nonzero(layer) - np.count_nonzero(np.isin(layer, values)))
    if not lost:
        return []
    return [f"{path.name} has {lost} voxels that belong to none of its segments; they are left out"]


def _numbered(
    entries: list[SegmentEntry], layers: list[NDArray[Any]], shape: tuple[int, ...]
) -> list[_Segment]:
    """The segments that have a layer, each with a label that no other has."""
    boxes = [_boxes(layer) for layer in layers]
    values = [entry.value for entry in entries if entry.value is not None]
    following = max(values, default=0)
    taken: set[int] = set()
    nowhere, everywhere = (slice(0, 0),) * len(shape), (slice(None),) * len(shape)
    segments = []
    for entry in entries:
        if entry.layer >= len(layers):
            continue
        label = entry.value
        if label is None or label in taken:
            following += 1
            label = following
        taken.add(label)
        box = everywhere if entry.value is None else boxes[entry.layer].get(entry.value, nowhere)
        segments.append(_Segment(entry, label, layers[entry.layer], box))
    return segments


def _boxes(layer: NDArray[Any]) -> dict[int, Box]:
    """The box around each label, so that not each has to be sought everywhere."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.SetComputePerimeter(False)
    shapes.Execute(sitk.GetImageFromArray(layer))
    boxes: dict[int, Box] = {}
    for label in shapes.GetLabels():
        i, j, k, columns, rows, slices = shapes.GetBoundingBox(label)
        boxes[int(label)] = slice(k, k + slices), slice(j, j + rows), slice(i, i + columns)
    return boxes


def _ranks(segments: list[_Segment], on_top: Sequence[str]) -> tuple[dict[int, int], list[str]]:
    """Label -> its place from the top, 0 first; and what names no segment."""
    ranks: dict[int, int] = {}
    unknown = []
    for text in on_top:
        whole = _named(segments, text)
        parts = [text] if whole else [part.strip() for part in text.split(",") if part.strip()]
        for part in parts:
            named = _named(segments, part)
            if not named:
                unknown.append(part)
            for segment in named:
                ranks.setdefault(segment.label, len(ranks))
    return ranks, unknown


def _named(segments: list[_Segment], text: str) -> list[_Segment]:
    """The segments of a name, in capital letters or not, else the one with that label."""
    wanted = " ".join(text.split())
    for same in (str, str.casefold):
        named = [each for each in segments if wanted and same(each.entry.name) == same(wanted)]
        if named:
            return named
    return [each for each in segments if str(each.label) == wanted]


def _drawn(
    segments: list[_Segment],
    shape: tuple[int, ...],
    wanted: Collection[int] | None,
    ranks: Mapping[int, int],
) -> tuple[NDArray[Any], list[_Covered]]:
    """The labelmap, drawn from the top down, and what was covered."""
    by_label = {segment.label: segment for segment in segments}
    flat = np.zeros(shape, smallest_label_type(max(by_label, default=0)))
    covered = []

    def place(segment: _Segment) -> tuple[int, bool]:
        unwanted = wanted is not None and segment.label not in wanted
        return ranks.get(segment.label, len(ranks)), unwanted

    for segment in sorted(segments, key=place):
        mask, part = segment.mask, flat[segment.box]
        above, counts = np.unique(part[mask], return_counts=True)
        covered += [
            _Covered(by_label[int(label)], segment, int(count))
            for label, count in zip(above, counts, strict=True)
            if label
        ]
        part[mask & (part == 0)] = segment.label
    return flat, covered


def _refuse_undecided(
    path: Path,
    covered: list[_Covered],
    wanted: Collection[int] | None,
    ranks: Mapping[int, int],
    absent: str,
) -> None:
    undecided = [
        each
        for each in covered
        if each.above.label not in ranks
        and (wanted is None or {each.above.label, each.below.label} <= set(wanted))
    ]
    if not undecided:
        return
    worst = max(undecided, key=lambda each: each.voxels)
    above, below = worst.above, worst.below
    more = f" (and {len(undecided) - 1} more pairs overlap)" if len(undecided) > 1 else ""
    # A segment that lies within another is the smaller one.
    top = min(above, below, key=lambda each: np.count_nonzero(each.mask))
    name = top.entry.name or str(top.label)
    raise InputError(
        f"segments {above.called} and {below.called} of '{path}' overlap in "
        f"{_shared(above, below)} voxels{more}, and a voxel can have one label "
        f"only{absent}",
        f"Say which one covers the other, such as {name}; or choose one of them, such as label "
        f"{top.label}; or take them apart in 3D Slicer",
        code="overlapping_segments",
        segment=name,
        label=top.label,
    )


def _shared(one: _Segment, other: _Segment) -> int:
    """How many voxels two segments share, those included that a third one covers."""
    shape = one.layer.shape
    whole = np.zeros(shape, bool)
    whole[one.box] = one.mask
    return int(np.count_nonzero(whole[other.box] & other.mask))


def _renumbering(path: Path, segments: list[_Segment]) -> list[str]:
    if not segments:
        return []
    which = _first_few([f"{each.called} is label {each.label}" for each in segments])
    return [f"segments of {path.name} have the same label value in different layers: {which}"]


def _covering(path: Path, covered: list[_Covered]) -> list[str]:
    if not covered:
        return []
    which = _first_few(
        [
            f"{each.voxels} voxels of {each.below.called} are covered by {each.above.called}"
            for each in sorted(covered, key=lambda each: -each.voxels)
        ]
    )
    return [f"segments of {path.name} overlap: {which}"]


def _listed(segments: list[_Segment]) -> str:
    return _first_few([f"{each.label} {each.entry.name}".strip() for each in segments])


def _first_few(parts: list[str]) -> str:
    more = len(parts) - _MOST_REMARKS
    return ", ".join(parts[:_MOST_REMARKS]) + (f", and {more} more" if more > 0 else "")
