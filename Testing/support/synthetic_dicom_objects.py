"""Small DICOM files made field by field: image series, segmentations (SEG), contours (RTSTRUCT).

Nothing of the product makes them, so that what it reads and writes is compared with another hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import pack_bits
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEG = "1.2.840.10008.5.1.4.1.1.66.7"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"

FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.8.498.1"
STUDY = "1.2.826.0.1.3680043.8.498.2"
SERIES = "1.2.826.0.1.3680043.8.498.3"

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
# A turn about two axes.
OBLIQUE = (
    (0.9396926207859084, 0.3420201433256687, 0.0),
    (-0.2961981327260238, 0.8137976813493738, 0.5),
)


@dataclass(frozen=True)
class Stack:
    """Parallel planes: where pixel (row, column) of plane k lies in LPS, mm.

    Attributes:
        axes: directions of rows (along them the column number grows) and of columns.
        origin: centre of pixel (0, 0) of plane 0.
        spacing: between rows, between columns.
        step: between planes, along the normal of the axes.
    """

    axes: tuple[tuple[float, ...], tuple[float, ...]] = AXIAL
    origin: tuple[float, ...] = (-30.0, 20.0, 100.0)
    spacing: tuple[float, float] = (1.5, 1.25)
    step: float = 4.0

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*np.array(self.axes))

    def position(self, k: float) -> np.ndarray:
        return np.array(self.origin) + k * self.step * self.normal

    def places(self, voxels: np.ndarray) -> np.ndarray:
        """LPS of voxels (n, 3) of k, row, column."""
        row_axis, column_axis = np.array(self.axes)
        k, row, column = np.asarray(voxels, float).T[:, :, None]
        along = column * self.spacing[1] * row_axis + row * self.spacing[0] * column_axis
        return np.array(self.origin) + k * self.step * self.normal + along


def _dataset(sop_class: str, modality: str, series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = modality, series, STUDY
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "P1"
    dataset.FrameOfReferenceUID = FRAME_OF_REFERENCE
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    return dataset


def _image_fields(dataset: Dataset, shape: tuple[int, ...], bits: int) -> None:
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0


def _number(value: float) -> str:
    return format_number_as_ds(float(value))


def _numbers(values: Sequence[float]) -> list[str]:
    return [_number(float(value)) for value in values]


def _item(**fields: Any) -> Dataset:
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def code(value: str, scheme: str, meaning: str, **more: Any) -> Dataset:
    """A coded term."""
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning, **more)


def write_series(
    folder: Path,
    array: np.ndarray,
    stack: Stack,
    *,
    series: str = SERIES,
    leave_out: Sequence[str] = (),
) -> list[Path]:
    """A CT series, one file for each plane; the files' names do not follow the planes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, plane in enumerate(array):
        dataset = _dataset(CT, "CT", series)
        _image_fields(dataset, plane.shape, 16)
        dataset.PixelSpacing = _numbers(stack.spacing)
        dataset.ImageOrientationPatient = _numbers([*stack.axes[0], *stack.axes[1]])
        dataset.ImagePositionPatient = _numbers(stack.position(k))
        dataset.SliceThickness = _number(stack.step)
        dataset.InstanceNumber = k + 1
        dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
        dataset.PixelData = (plane + 1024).astype("<u2").tobytes()
        for name in leave_out:
            if name in dataset:
                delattr(dataset, name)
        paths.append(folder / f"{(7 * k) % len(array):03}_{k}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_multi_frame(path: Path, array: np.ndarray, stack: Stack) -> None:
    """The same as one enhanced CT file."""
    dataset = _dataset(ENHANCED_CT, "CT", SERIES)
    _image_fields(dataset, array.shape[1:], 16)
    dataset.NumberOfFrames = len(array)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    transformation = _item(RescaleIntercept="-1024", RescaleSlope="1", RescaleType="HU")
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[
                _item(ImageOrientationPatient=_numbers([*stack.axes[0], *stack.axes[1]]))
            ],
            PixelMeasuresSequence=[
                _item(PixelSpacing=_numbers(stack.spacing), SliceThickness=_number(stack.step))
            ],
            PixelValueTransformationSequence=[transformation],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_item(ImagePositionPatient=_numbers(stack.position(k)))])
        for k in range(len(array))
    ]
    dataset.PixelData = (array + 1024).astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


@dataclass
class Segment:
    """A segment of a SEG: what it is called, and its pixels on some planes."""

    name: str = ""
    planes: dict[float, np.ndarray] = field(default_factory=dict)
    lab: Sequence[int] | None = None
    category: Dataset | None = None
    kind: Dataset | None = None
    region: Dataset | None = None


def write_seg(
    path: Path,
    stack: Stack,
    segments: Mapping[int, Segment],
    *,
    kind: str = "BINARY",
    full: int = 255,
    between: float | None = None,
    order: Sequence[int] | None = None,
    change: Any = lambda dataset: None,
) -> None:
    """A segmentation object.

    Args:
        path: the file.
        stack: places of the planes.
        segments: number -> segment; the pixels of a LABELMAP lie in the first one.
        kind: BINARY, FRACTIONAL or LABELMAP.
        full: the largest fraction.
        between: the distance between planes, where the file shall tell it.
        order: of the frames.
        change: given the dataset before it is written.
    """
    label_map = kind == "LABELMAP"
    frames = [
        (number, k, pixels)
        for number, each in segments.items()
        for k, pixels in each.planes.items()
    ]
    frames = [frames[place] for place in order or range(len(frames))]
    dataset = _dataset(LABEL_MAP_SEG if label_map else SEG, "SEG", generate_uid())
    dataset.SegmentationType = kind
    if kind == "FRACTIONAL":
        dataset.SegmentationFractionalType, dataset.MaximumFractionalValue = "PROBABILITY", full
    dataset.SegmentSequence = [_segment_item(number, each) for number, each in segments.items()]
    pixels = np.array([pixels for _, _, pixels in frames])
    _image_fields(dataset, pixels.shape[1:] or (0, 0), 1 if kind == "BINARY" else 8)
    dataset.NumberOfFrames = len(frames)
    measures = _item(PixelSpacing=_numbers(stack.spacing))
    if between is not None:
        measures.SpacingBetweenSlices = _number(between)
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[
                _item(ImageOrientationPatient=_numbers([*stack.axes[0], *stack.axes[1]]))
            ],
            PixelMeasuresSequence=[measures],
        )
    ]
    described = []
    for number, k, _ in frames:
        item = _item(
            PlanePositionSequence=[_item(ImagePositionPatient=_numbers(stack.position(k)))]
        )
        if not label_map:
            item.SegmentIdentificationSequence = [_item(ReferencedSegmentNumber=number)]
        described.append(item)
    dataset.PerFrameFunctionalGroupsSequence = described
    if frames:
        flat = pixels.astype(np.uint8)
        dataset.PixelData = pack_bits(flat.ravel()) if kind == "BINARY" else flat.tobytes()
        if len(dataset.PixelData) % 2:
            dataset.PixelData += b"\0"
    change(dataset)
    dataset.save_as(path, enforce_file_format=True)


def _segment_item(number: int, segment: Segment) -> Dataset:
    item = _item(SegmentNumber=number, SegmentLabel=segment.name, SegmentAlgorithmType="MANUAL")
    if segment.lab is not None:
        item.RecommendedDisplayCIELabValue = list(segment.lab)
    if segment.category is not None:
        item.SegmentedPropertyCategoryCodeSequence = [segment.category]
    if segment.kind is not None:
        item.SegmentedPropertyTypeCodeSequence = [segment.kind]
    if segment.region is not None:
        item.AnatomicRegionSequence = [segment.region]
    return item


@dataclass
class Region:
    """A region of interest of an RTSTRUCT: closed contours, each as LPS points (n, 3)."""

    name: str = ""
    contours: list[np.ndarray] = field(default_factory=list)
    colour: tuple[int, int, int] | None = None
    kind: str = "CLOSED_PLANAR"


def write_contours(
    path: Path, regions: Mapping[int, Region], frame_of_reference: str = FRAME_OF_REFERENCE
) -> None:
    """A structure set."""
    dataset = _dataset(RTSTRUCT, "RTSTRUCT", generate_uid())
    del dataset.FrameOfReferenceUID
    dataset.StructureSetLabel = "test"
    dataset.StructureSetROISequence = [
        _item(
            ROINumber=number,
            ROIName=each.name,
            ReferencedFrameOfReferenceUID=frame_of_reference,
            ROIGenerationAlgorithm="",
        )
        for number, each in regions.items()
    ]
    drawn = []
    for number, each in regions.items():
        item = _item(ReferencedROINumber=number)
        if each.colour is not None:
            item.ROIDisplayColor = list(each.colour)
        if each.contours:
            item.ContourSequence = [
                _item(
                    ContourGeometricType=each.kind,
                    NumberOfContourPoints=len(points),
                    ContourData=_numbers(points.ravel()),
                )
                for points in each.contours
            ]
        drawn.append(item)
    dataset.ROIContourSequence = drawn
    dataset.save_as(path, enforce_file_format=True)
