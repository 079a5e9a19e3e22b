"""Reads DICOM segmentation objects (SEG) as labelmaps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.dicom.dataset import damaged_if_it_fails, dicom_library, read_dataset
from SAMFineTuneLib.volumes.dicom.frames import FrameGrid, FramePlace, grid_of
from SAMFineTuneLib.volumes.dicom.terms import rgb, terminology_entry
from SAMFineTuneLib.volumes.labelmap import Colour, Labelmap, smallest_label_type
from SAMFineTuneLib.volumes.segment_overlaps import Part, Segment, flattened

_LABEL_MAP, _FRACTIONAL, _BINARY = "LABELMAP", "FRACTIONAL", "BINARY"

# The share of a voxel, or the probability, above which the voxel belongs to the segment.
_HALF = 0.5


@dataclass(frozen=True)
class _Told:
    """The content of the file without its voxels.

    Attributes:
        kind: BINARY, FRACTIONAL or LABELMAP.
        full: the value of a full voxel of a fractional segmentation.
        rows: number of rows of a frame.
        columns: number of columns of a frame.
        places: the place of each frame.
        segments: the segment of each frame; None if each voxel's value is its segment.
        names: segment -> name.
        colours: segment -> colour.
        terminologies: segment -> terminology entry.
        frame_of_reference: UID of the frame of reference, "" if there is none.
    """

    kind: str
    full: int
    rows: int
    columns: int
    places: list[FramePlace]
    segments: list[int] | None
    names: dict[int, str]
    colours: dict[int, Colour]
    terminologies: dict[int, str]
    frame_of_reference: str


def read_segmentation(
    path: Path,
    over: Geometry | None = None,
    wanted: Collection[int] | None = None,
    on_top: Sequence[str] = (),
) -> Labelmap:
    """The labelmap of a DICOM segmentation object; its labels are the segments' numbers.

    It has the grid of its own frames: planes without a frame are empty. A voxel belongs to a
    fractional segment that fills more than half of it.

    Args:
        path: the file.
        over: grid of the image that was segmented, if it is known: it gives the spacing of the
            planes if the file does not, and is the grid of a segmentation without frames.
        wanted: the segments to read; None reads all.
        on_top: names or numbers of segments that cover others, the uppermost first.

    Raises:
        InputError: the libraries for DICOM are missing, the file is damaged, its frames do not lie
            on one grid, it has none and `over` is None, or segments overlap without an order.
    """
    dataset = read_dataset(path)
    cielab = dicom_library("highdicom.color", path).CIELabColor
    with damaged_if_it_fails(path):
        _refuse_slide(path, dataset)
        told = _told(dataset, cielab)
    frame = _frame_reader(path, dataset, told)
    if not told.places:
        return _without_frames(path, told, over)
    # A frame is read first, so that a damaged size is noticed before memory is allocated for it.
    frame(0)
    grid = grid_of(path, told.places, told.rows, told.columns, over)
    remarks = list(grid.remarks)
    if told.segments is None:
        array = _label_map(grid, told, frame, wanted)
    else:
        segments = [
            Segment(
                number,
                told.names.get(number, ""),
                partial(_parts, grid, told, told.segments, number, frame),
            )
            for number in sorted(set(told.segments))
            if wanted is None or number in wanted
        ]
        array, overlaps = flattened(path, grid.geometry.shape, segments, on_top)
        remarks += overlaps
    if told.kind == _FRACTIONAL:
        remarks.append(
            f"{path.name} is a fractional segmentation: voxels of which a segment fills more than "
            "half have its label"
        )
    return Labelmap(
        array,
        grid.geometry,
        told.names,
        told.colours,
        terminologies=told.terminologies,
        remarks=tuple(remarks),
        frame_of_reference=told.frame_of_reference,
    )


def _refuse_slide(path: Path, dataset: Any) -> None:
    tiled = str(dataset.get("DimensionOrganizationType", "")).startswith("TILED")
    if tiled or "TotalPixelMatrixColumns" in dataset:
        raise InputError(
            f"'{path}' is a segmentation in tiles, as for a microscope slide, not of a volume",
            "Give the segmentation of a volume",
            code="not_3d",
        )


def _told(dataset: Any, cielab: Any) -> _Told:
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = int(dataset.get("NumberOfFrames") or 0)
    if count != len(frames):
        raise ValueError(f"it announces {count} frames and describes {len(frames)}")
    kind = str(dataset.SegmentationType)
    if kind not in (_BINARY, _FRACTIONAL, _LABEL_MAP):
        raise ValueError(f"unknown segmentation type {kind}")
    names, colours, terminologies = {}, {}, {}
    for item in dataset.get("SegmentSequence") or []:
        number = int(item.SegmentNumber)
        name = " ".join(str(item.get("SegmentLabel") or "").split())
        if number == 0:
            continue
        if name:
            names[number] = name
        lab = item.get("RecommendedDisplayCIELabValue")
        if lab is not None and len(lab) == 3:
            colours[number] = rgb(lab, cielab)
        entry = terminology_entry(item)
        if entry:
            terminologies[number] = entry
    segments = None
    if kind != _LABEL_MAP:
        segments = [
            int(_group(frame, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            for frame in frames
        ]
        if min(segments, default=1) < 1:
            raise ValueError("a frame is of segment 0")
    return _Told(
        kind,
        int(dataset.get("MaximumFractionalValue") or 0) or 1,
        int(dataset.get("Rows") or 0),
        int(dataset.get("Columns") or 0),
        [_place(frame, shared) for frame in frames],
        segments,
        names,
        colours,
        terminologies,
        str(dataset.get("FrameOfReferenceUID") or ""),
    )


def _place(frame: Any, shared: Any) -> FramePlace:
    measures = _group(frame, shared, "PixelMeasuresSequence")
    orientation = _group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient
    position = _group(frame, shared, "PlanePositionSequence").ImagePositionPatient
    place = FramePlace(
        tuple(float(value) for value in position),
        tuple(float(value) for value in orientation),
        tuple(float(value) for value in measures.PixelSpacing),
        _number(measures.get("SpacingBetweenSlices")),
        _number(measures.get("SliceThickness")),
    )
    numbers = (*place.position, *place.orientation, *place.pixel_spacing)
    if [len(part) for part in place[:3]] != [3, 6, 2] or not np.isfinite(numbers).all():
        raise ValueError("a frame does not give its place")
    return place


def _number(value: Any) -> float | None:
    return None if value is None or value == "" else float(value)


def _group(frame: Any, shared: Any, name: str) -> Any:
    """An item of a frame's own description, or else of the one that all frames share."""
    found = _first(frame, name) or _first(shared, name)
    if found is None:
        raise ValueError(f"a frame has no {name}")
    return found


def _first(item: Any, name: str) -> Any:
    sequence = item.get(name) if item is not None else None
    return sequence[0] if sequence else None


def _label_map(
    grid: FrameGrid,
    told: _Told,
    frame: Callable[[int], NDArray[Any]],
    wanted: Collection[int] | None,
) -> NDArray[Any]:
    """The labels of frames in which each voxel's value is its segment."""
    array = np.zeros(grid.geometry.shape, np.uint16)
    for number in range(len(told.places)):
        part = array[_within(grid, told, number)]
        # If several frames lie on one plane, later ones fill only voxels that are still empty.
        np.copyto(part, frame(number).astype(np.uint16), where=part == 0)
    if wanted is not None:
        array[~np.isin(array, list(wanted))] = 0
    return array.astype(smallest_label_type(int(array.max())), copy=False)


def _parts(
    grid: FrameGrid,
    told: _Told,
    segments: Sequence[int],
    segment: int,
    frame: Callable[[int], NDArray[Any]],
) -> Iterator[Part]:
    for number, each in enumerate(segments):
        if each == segment:
            pixels = frame(number)
            fractional = told.kind == _FRACTIONAL
            mask = pixels > _HALF * told.full if fractional else pixels > 0
            yield Part(_within(grid, told, number), mask)


def _within(grid: FrameGrid, told: _Told, number: int) -> tuple[int, slice, slice]:
    """The index of a frame in the array of the grid."""
    k, j, i = grid.corners[number]
    return k, slice(j, j + told.rows), slice(i, i + told.columns)


def _frame_reader(path: Path, dataset: Any, told: _Told) -> Callable[[int], NDArray[Any]]:
    """A function that unpacks one frame, shape (rows, columns), by its number from 0."""
    pixels = dicom_library("pydicom.pixels", path)
    size = told.rows * told.columns
    count = len(told.places)
    with damaged_if_it_fails(path):
        if count and not size:
            raise ValueError("its frames have no pixels")
        syntax = dataset.file_meta.TransferSyntaxUID
        encapsulated = syntax.is_encapsulated
        in_bits = int(dataset.get("BitsAllocated") or 1) == 1
        packed = in_bits and syntax.is_little_endian and not encapsulated
        stored = dataset.get("PixelData") or b""
        bits = 1 if in_bits else 8
        short = not encapsulated and 8 * len(stored) < size * count * bits
        if count and (not stored or short):
            raise ValueError("it ends before its last voxel")
        readable = not encapsulated or pixels.get_decoder(syntax).is_available
    if count and not readable:
        raise InputError(
            f"the voxels of '{path}' are compressed ({syntax.name}), for which a Python package "
            "is missing",
            "Install it: pip install 'pylibjpeg[all]', or save the file uncompressed",
            code="missing_package",
            packages="pylibjpeg[all]",
        )

    def unpacked(number: int) -> NDArray[Any]:
        # pydicom unpacks single frames only if each begins at a whole byte.
        start, end = number * size, (number + 1) * size
        part = np.frombuffer(stored, np.uint8)[start // 8 : -(-end // 8)]
        bits = np.unpackbits(part, bitorder="little")
        return bits[start % 8 : start % 8 + size].reshape(told.rows, told.columns)

    def decoded(number: int) -> NDArray[Any]:
        with damaged_if_it_fails(path):
            found: NDArray[Any] = pixels.pixel_array(dataset, index=number)
            return found.reshape(told.rows, told.columns)

    return unpacked if packed else decoded


def _without_frames(path: Path, told: _Told, over: Geometry | None) -> Labelmap:
    if over is None:
        raise InputError(
            f"the segmentation '{path}' is empty: it holds no frame",
            "Label the structure on some slices first, or name the right file",
            code="empty_segmentation",
        )
    empty = Labelmap(
        np.zeros(over.shape, np.uint8),
        over,
        told.names,
        told.colours,
        terminologies=told.terminologies,
        frame_of_reference=told.frame_of_reference,
    )
    return replace(empty, remarks=(f"{path.name} holds no frame: it is empty",))
