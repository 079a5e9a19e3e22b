"""Converts segmentations of 3D Slicer in several layers or of fractions to one labelmap.

Slicer stores segments that overlap in different layers: the file is a 4-D NRRD whose first axis is
that of the layers (the last axis in files from before Slicer 4.6). Until Slicer 4.10 every segment
had its own layer, whether or not it overlapped with another. Label values are counted in each layer
anew, so that two segments may have the same value.

The labels here are as follows. The first segment in the file that has a label value keeps it; the
others, and those without one, get the numbers after the largest label value of the file, in the
order of the file. If a file gives no label values at all, its segments are numbered from 1.
"""

from __future__ import annotations

import re
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
from SAMFineTuneLib.volumes.segment_overlaps import Part, Segment, first_few, flattened

Box = tuple[slice, ...]

# The field that every sequence of 3D Slicer has.
_SEQUENCE = re.compile(r"axis \d index type")


class Flattened(NamedTuple):
    """Segments on one labelmap.

    Attributes:
        array: labels, shape (k, j, i).
        told: label -> name, colour, terminology entry; including segments without a voxel.
        non_finite: how many voxels were NaN or infinite and became background.
        remarks: what the user should know of how labels were assigned, one sentence each.
    """

    array: NDArray[Any]
    told: SegmentHeader
    non_finite: int
    remarks: tuple[str, ...]


class _LayeredSegment(NamedTuple):
    """A segment with a label that no other has, and the place of its voxels.

    Attributes:
        entry: its description in the header.
        label: its label in the labelmap.
        layer: label values of its layer, shape (k, j, i).
        box: the part of the layer in which its voxels lie.
    """

    entry: SegmentEntry
    label: int
    layer: NDArray[Any]
    box: Box

    def parts(self) -> list[Part]:
        """Its voxels, as one part."""
        part = self.layer[self.box]
        value = self.entry.value
        return [Part(self.box, part != 0 if value is None else part == value)]

    def as_segment(self) -> Segment:
        """The segment in the form in which it is drawn."""
        return Segment(self.label, self.entry.name, self.parts)


def has_layers(image: sitk.Image | sitk.ImageFileReader) -> bool:
    """Whether an image, or a header that has been read, holds segments in several layers.

    A sequence that tells the names of its segments has frames there.
    """
    if any(_SEQUENCE.fullmatch(key) for key in image.GetMetaDataKeys()):
        return False
    if not any(key.startswith("Segment0_") for key in image.GetMetaDataKeys()):
        return False
    components, size = _components(image), image.GetSize()
    if len(size) == 4 and size[3] > 1:
        return components == 1
    return components > 1 and len(size) == 3


def layers_as_components(image: sitk.Image) -> sitk.Image:
    """The layers as components of a 3-D image, also if the file has them along a fourth axis."""
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
    """Whether a file's voxels have to be converted to labels of its segments."""
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
            segment that is not among them, it stays whole.
        on_top: names or labels of segments that cover the others where they overlap, the highest
            first; see `flattened`.

    Raises:
        InputError: two segments overlap and neither is to be on top, values cannot be labels, or
            fractional segments share a layer.
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
    flat, overlaps = flattened(
        path, layers.shape[:3], [each.as_segment() for each in segments], on_top, wanted
    )
    renumbered = [each for each in segments if each.entry.value not in (None, each.label)]
    remarks += (*_renumbering(path, renumbered), *overlaps)
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
    """Layers that hold the label value of their segment where it fills more than half a voxel."""
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
    """A remark on voxels that belong to no segment of the header."""
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
) -> list[_LayeredSegment]:
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
        segments.append(_LayeredSegment(entry, label, layers[entry.layer], box))
    return segments


def _boxes(layer: NDArray[Any]) -> dict[int, Box]:
    """The box around each label, so that its voxels need not be searched in the whole layer."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.SetComputePerimeter(False)
    shapes.Execute(sitk.GetImageFromArray(layer))
    boxes: dict[int, Box] = {}
    for label in shapes.GetLabels():
        i, j, k, columns, rows, slices = shapes.GetBoundingBox(label)
        boxes[int(label)] = slice(k, k + slices), slice(j, j + rows), slice(i, i + columns)
    return boxes


def _renumbering(path: Path, segments: list[_LayeredSegment]) -> list[str]:
    if not segments:
        return []
    which = first_few([f"{each.as_segment().called} is label {each.label}" for each in segments])
    return [f"segments of {path.name} have the same label value in different layers: {which}"]
