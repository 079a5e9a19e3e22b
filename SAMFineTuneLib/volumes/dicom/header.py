"""Reads the headers of DICOM images; each file or frame is an image plane."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Triple = tuple[float, float, float]
Pair = tuple[float, float]

# The length of the preamble and the mark after it. A file without them begins with an element of
# the group below.
_PREAMBLE, _MAGIC = 128, b"DICM"
_FIRST_GROUP = b"\x08\x00"
# The SOP class of a DICOMDIR, the list of files on a medium, which belongs to no series.
_DIRECTORY = "1.2.840.10008.1.3.10"

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "ImageType",
    "Modality",
    "StudyDate",
    "SeriesDate",
    "SeriesDescription",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "ConcatenationUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "RealWorldValueMappingSequence",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceLocation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SequenceOfUltrasoundRegions",
    "DetectorInformationSequence",
    "GridFrameOffsetVector",
    "FrameIncrementPointer",
    "EchoTime",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "AcquisitionTime",
    "TriggerTime",
    "ContentTime",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]

# Fields that may differ between two images at the same place, and their names in messages.
_PHASES = {
    "EchoTime": "echo time",
    "EchoNumbers": "echo",
    "TemporalPositionIdentifier": "time point",
    "TriggerTime": "trigger time",
    "AcquisitionNumber": "acquisition",
    "AcquisitionTime": "acquisition time",
    "ContentTime": "time",
}

# The sequences that hold functional groups.
_PLANE_POSITION = "PlanePositionSequence"
_PLANE_ORIENTATION = "PlaneOrientationSequence"
_PIXEL_MEASURES = "PixelMeasuresSequence"
_PIXEL_VALUES = "PixelValueTransformationSequence"

# The code for centimetres as the units of an ultrasound region.
_CENTIMETRES = 3

# The tags of the frame time and its vector: frames that point to these follow each other in time.
_TIME_POINTERS = {0x00181063, 0x00181065}


class DamagedHeaderError(Exception):
    """The file is DICOM, but its header cannot be read."""


@dataclass(frozen=True)
class Plane:
    """The header of one image plane, which is a file or a frame of one.

    Values that are missing or invalid are None.

    Attributes:
        file: the file that holds it.
        frame: its index in a file of several frames, otherwise None.
        size: number of columns, number of rows.
        position: centre of the first pixel in LPS, mm.
        orientation: unit vectors in LPS along a row and down a column, six numbers.
        pixel_spacing: mm between neighbouring pixels along a row, and down a column.
        at_detector: whether the pixel spacing is that at the detector, not in the patient.
        location: place along the normal of the plane, in mm from an unknown point.
        between: distance from one slice to the next, in mm.
        thickness: thickness of the slice, in mm.
        stored: how its pixels are stored; planes with equal values have the same type of number.
        scaling: slope and intercept from stored to true values.
        image_type: the words of the field Image Type, such as LOCALIZER.
        number: its number in the order in which images were taken.
        identifier: UID of its file.
        phase: fields that may distinguish it from another plane at the same place.
    """

    file: Path
    frame: int | None
    size: tuple[int, int]
    position: Triple | None
    orientation: tuple[float, ...] | None
    pixel_spacing: Pair | None
    at_detector: bool
    location: float | None
    between: float | None
    thickness: float | None
    stored: tuple[Any, ...]
    scaling: Pair
    image_type: tuple[str, ...]
    number: int
    identifier: str
    phase: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Its name in messages."""
        if self.frame is None:
            return self.file.name
        return f"frame {self.frame + 1} of {self.file.name}"

    @property
    def is_localizer(self) -> bool:
        """Whether it is an overview on which slices are planned."""
        return any(word in ("LOCALIZER", "SCOUT") for word in self.image_type)


@dataclass(frozen=True)
class DicomFile:
    """The header of one DICOM file.

    Attributes:
        path: the file.
        planes: its image planes; empty if it holds no image.
        identifier: UID of this file.
        series: UID of its series.
        study: UID of its study.
        concatenation: UID of the concatenation of which the file is a part, "" for none.
        modality: "CT", "MR", ...; "" if it is not given.
        description: description of the series by the scanner or its user.
        series_number: number of the series by the scanner, "" for none.
        date: date of the series, or else of the study, as YYYYMMDD.
        kind: UID of its SOP class.
        samples: number of values for each pixel, more than one in colour images.
        in_time: whether its frames follow each other in time.
    """

    path: Path
    planes: tuple[Plane, ...]
    identifier: str
    series: str
    study: str
    concatenation: str
    modality: str
    description: str
    series_number: str
    date: str
    kind: str
    samples: int
    in_time: bool = False


def read_header(path: Path) -> DicomFile | None:
    """The header of a DICOM file; None if the file is no DICOM file.

    Raises:
        DamagedHeaderError: the file is DICOM, but its header cannot be read.
    """
    start = _start_of(path)
    if start is None:
        return None
    try:
        with _quiet():
            data = _dataset(path, force=start != _MAGIC)
            _require_content(data)
            return _parsed(path, data)
    # A damaged header can make any part of the parser fail, with any exception.
    except Exception as error:
        if start != _MAGIC:
            return None
        raise DamagedHeaderError(f"{path.name}: {error}") from error


def is_dicom(path: Path) -> bool:
    """Whether a file begins like a DICOM file."""
    return _start_of(path) == _MAGIC


def series_of(path: Path) -> str:
    """UID of the series that a file belongs to; "" if it is no readable DICOM file."""
    if not is_dicom(path):
        return ""
    try:
        with _quiet():
            return str(_dataset(path, tags=["SeriesInstanceUID"]).get("SeriesInstanceUID", ""))
    except Exception:
        return ""


def _start_of(path: Path) -> bytes | None:
    """The mark of a DICOM file, or the first group of a file without a mark; None for others."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_PREAMBLE + len(_MAGIC))
    except OSError:
        return None
    if start[_PREAMBLE:] == _MAGIC:
        return _MAGIC
    # The next two bytes are the number of an element, which is low at the beginning of a group.
    if start[:2] == _FIRST_GROUP and start[2:4] < b"\x20\x00" and start[3:4] == b"\x00":
        return start[:2]
    return None


def _dataset(path: Path, force: bool = False, tags: list[str] | None = None) -> Any:
    import pydicom

    tags = _TAGS if tags is None else tags
    return pydicom.dcmread(
        path, stop_before_pixels=True, force=force, specific_tags=[*tags, "SpecificCharacterSet"]
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses pydicom's warnings about invalid values, which most real files contain."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _require_content(data: Any) -> None:
    """Refuses a file without a SOP class, series or size, because the parser accepts any bytes."""
    kind = str(data.file_meta.get("MediaStorageSOPClassUID", ""))
    told = (kind == _DIRECTORY, "SOPClassUID" in data, "SeriesInstanceUID" in data, "Rows" in data)
    if not any(told):
        raise ValueError("it describes no image")


def _parsed(path: Path, data: Any) -> DicomFile:
    pointer = data.get("FrameIncrementPointer")
    pointers = pointer if isinstance(pointer, list) else [pointer]
    return DicomFile(
        path=path,
        planes=tuple(_planes(path, data)),
        identifier=_text(data, "SOPInstanceUID"),
        series=_text(data, "SeriesInstanceUID"),
        study=_text(data, "StudyInstanceUID"),
        concatenation=_text(data, "ConcatenationUID"),
        modality=_text(data, "Modality"),
        description=_text(data, "SeriesDescription"),
        series_number=_text(data, "SeriesNumber"),
        date=_text(data, "SeriesDate") or _text(data, "StudyDate"),
        kind=_text(data, "SOPClassUID"),
        samples=int(_number(data, "SamplesPerPixel") or 1),
        in_time=any(each in _TIME_POINTERS for each in pointers if each is not None),
    )


def _planes(path: Path, data: Any) -> Iterator[Plane]:
    rows, columns = _number(data, "Rows"), _number(data, "Columns")
    if not rows or not columns:
        return
    several = "NumberOfFrames" in data and int(_number(data, "NumberOfFrames") or 1) > 1
    groups = list(data.get("PerFrameFunctionalGroupsSequence") or [])
    shared = (list(data.get("SharedFunctionalGroupsSequence") or []) or [None])[0]
    frames = int(_number(data, "NumberOfFrames") or 1)
    offsets = _frame_offsets(data, frames)
    for frame in range(frames):
        own = groups[frame] if frame < len(groups) else None
        sources = _Sources(data, shared, own)
        position = _triple(sources.value(_PLANE_POSITION, "ImagePositionPatient"))
        orientation = _orientation(sources.value(_PLANE_ORIENTATION, "ImageOrientationPatient"))
        if offsets and position and orientation:
            normal = _normal(orientation)
            position = tuple(  # type: ignore[assignment]
                start + offsets[frame] * along
                for start, along in zip(position, normal, strict=True)
            )
        elif several and not groups:
            # A single position for all frames is not the position of each frame.
            position = None
        spacing, at_detector = _pixel_spacing(sources)
        slope = _number_in(sources.value(_PIXEL_VALUES, "RescaleSlope"))
        intercept = _number_in(sources.value(_PIXEL_VALUES, "RescaleIntercept"))
        yield Plane(
            file=path,
            frame=frame if several else None,
            size=(int(columns), int(rows)),
            position=position,
            orientation=orientation,
            pixel_spacing=spacing,
            at_detector=at_detector,
            location=_number(data, "SliceLocation") if not several else None,
            between=_positive(sources.value(_PIXEL_MEASURES, "SpacingBetweenSlices")),
            thickness=_positive(sources.value(_PIXEL_MEASURES, "SliceThickness")),
            stored=_stored(data),
            scaling=(1.0 if slope is None else slope, intercept or 0.0),
            image_type=tuple(str(each).upper() for each in _several(data.get("ImageType"))),
            number=int(_number(data, "InstanceNumber") or 0),
            identifier=_text(data, "SOPInstanceUID"),
            phase=sources.phase(),
        )


class _Sources:
    """Looks up values of a plane: in its own group, then in the shared one, then in the file."""

    def __init__(self, data: Any, shared: Any, own: Any) -> None:
        self._data, self._groups = data, [each for each in (own, shared) if each is not None]
        # In nuclear medicine the places of the slices are in the description of the detector.
        detectors = list(data.get("DetectorInformationSequence") or [])
        self._plain = [data, *detectors[:1]]

    def value(self, sequence: str, keyword: str) -> Any:
        for group in self._groups:
            for item in group.get(sequence) or []:
                if item.get(keyword) not in (None, ""):
                    return item.get(keyword)
        return self.plain(keyword)

    def plain(self, keyword: str) -> Any:
        values = (each.get(keyword) for each in self._plain)
        return next((value for value in values if value not in (None, "")), None)

    def phase(self) -> dict[str, str]:
        """Fields that may distinguish it from another image at the same place, by their names."""
        found = {
            name: str(self._data.get(keyword))
            for keyword, name in _PHASES.items()
            if self._data.get(keyword) not in (None, "")
        }
        content = self._in_own("FrameContentSequence", "TemporalPositionIndex")
        echo = self._in_own("MREchoSequence", "EffectiveEchoTime")
        value = self._in_own("MRDiffusionSequence", "DiffusionBValue")
        told = {"time point": content, "echo time": echo, "b-value": value}
        return found | {name: str(each) for name, each in told.items() if each is not None}

    def _in_own(self, sequence: str, keyword: str) -> Any:
        for group in self._groups:
            for item in group.get(sequence) or []:
                if item.get(keyword) is not None:
                    return item.get(keyword)
        return None


def _frame_offsets(data: Any, frames: int) -> list[float]:
    """The distance of each frame from the first along the normal, if the file gives it for all."""
    if frames < 2 or data.get("PerFrameFunctionalGroupsSequence"):
        return []
    listed = [_number_in(each) for each in _several(data.get("GridFrameOffsetVector"))]
    if len(listed) == frames and None not in listed:
        # The numbers are either offsets from the first frame, or places along z.
        told = [each for each in listed if each is not None]
        return [each - told[0] for each in told]
    step = _number(data, "SpacingBetweenSlices") or _number(data, "SliceThickness")
    pointer = data.get("FrameIncrementPointer")
    pointers = pointer if isinstance(pointer, list) else [pointer]
    if step and not any(each in _TIME_POINTERS for each in pointers if each is not None):
        return [step * frame for frame in range(frames)]
    return []


def _pixel_spacing(sources: _Sources) -> tuple[Pair | None, bool]:
    """The pixel spacing along a row and down a column, and whether it is that at the detector."""
    told = _pair(sources.value(_PIXEL_MEASURES, "PixelSpacing"))
    if told is not None:
        return told, False
    scanned = _pair(sources.plain("NominalScannedPixelSpacing"))
    if scanned is not None:
        return scanned, False
    regions = list(sources.plain("SequenceOfUltrasoundRegions") or [])
    for region in regions[:1]:
        x, y = (_positive(region.get(f"PhysicalDelta{axis}")) for axis in "XY")
        units = {region.get(f"PhysicalUnits{axis}Direction") for axis in "XY"}
        if x and y and units == {_CENTIMETRES}:
            return (10 * x, 10 * y), False
    return _pair(sources.plain("ImagerPixelSpacing")), True


def _stored(data: Any) -> tuple[Any, ...]:
    mappings = [
        (_number(item, "RealWorldValueSlope"), _number(item, "RealWorldValueIntercept"))
        for item in data.get("RealWorldValueMappingSequence") or []
    ]
    bits = (_number(data, name) for name in ("BitsAllocated", "BitsStored", "PixelRepresentation"))
    return (*bits, *mappings)


def _orientation(value: Any) -> tuple[float, ...] | None:
    numbers = [_number_in(each) for each in _several(value)]
    if len(numbers) != 6 or None in numbers:
        return None
    told = tuple(each for each in numbers if each is not None)
    row, column = told[:3], told[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    if min(lengths) < 0.5 or abs(sum(a * b for a, b in zip(row, column, strict=True))) > 0.05:
        return None
    return (*(each / lengths[0] for each in row), *(each / lengths[1] for each in column))


def _normal(orientation: tuple[float, ...]) -> Triple:
    a, b = orientation[:3], orientation[3:]
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _triple(value: Any) -> Triple | None:
    numbers = [_number_in(each) for each in _several(value)]
    if len(numbers) != 3 or None in numbers:
        return None
    return numbers[0], numbers[1], numbers[2]  # type: ignore[return-value]


def _pair(value: Any) -> Pair | None:
    """A pair of spacings in the order along a row, down a column; DICOM has them the other way."""
    numbers = [_positive(each) for each in _several(value)]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        return None
    return numbers[1], numbers[0]


def _several(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _positive(value: Any) -> float | None:
    number = _number_in(value)
    return abs(number) if number else None


def _number(data: Any, keyword: str) -> float | None:
    return _number_in(data.get(keyword))


def _number_in(value: Any) -> float | None:
    """A finite number, or None."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _text(data: Any, keyword: str) -> str:
    value = data.get(keyword)
    return "" if value is None else " ".join(str(value).split())
