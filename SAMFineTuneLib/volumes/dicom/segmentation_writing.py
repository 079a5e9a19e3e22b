"""Writes labelmaps as DICOM segmentation objects (SEG) that refer to their volume's series."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib import __version__
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.dicom.dataset import dicom_library
from SAMFineTuneLib.volumes.dicom.segmentation import read_segmentation
from SAMFineTuneLib.volumes.dicom.sources import names_dicom
from SAMFineTuneLib.volumes.dicom.terms import TISSUE, Code, Terms, terms_of
from SAMFineTuneLib.volumes.labelmap import Labelmap, labelmap_onto
from SAMFineTuneLib.volumes.segment_header import colour_of
from SAMFineTuneLib.volumes.writing import appearing_whole

SUFFIX = ".dcm"

_PRODUCT = "SAMFineTune"
_SERIES_NUMBER = 1000
# The longest name or meaning of a code in DICOM (value representation LO), in characters.
_LONGEST = 64
_FAMILY = Code("DCM", "123110", "Artificial Intelligence")
_SEXES = ("M", "F", "O")
# Fields that highdicom needs in the source. They may be empty in DICOM (type 2), and are often
# missing altogether.
_MAY_BE_EMPTY = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
_NEEDED = {
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "SOPInstanceUID": "image",
    "FrameOfReferenceUID": "frame of reference",
}


def check_dicom_output(path: Path, volume: Path) -> None:
    """Check before the work that a DICOM segmentation can be written afterwards.

    Args:
        path: the file to write.
        volume: the volume's file or folder.

    Raises:
        InputError: the volume is not DICOM, or the libraries are not installed.
    """
    if not names_dicom(volume):
        raise InputError(
            f"'{path}' would be a DICOM segmentation, which belongs to a DICOM series, and "
            f"'{volume}' is none",
            "Name an output in .nii.gz or .seg.nrrd, or the volume's DICOM folder",
            code="not_dicom",
        )
    dicom_library("highdicom.seg", path)


def segment_numbers(labels: Sequence[int]) -> dict[int, int]:
    """Label -> number of its segment, because DICOM numbers segments from 1 without gaps."""
    return {label: number for number, label in enumerate(sorted(labels), start=1)}


def rehearse(path: Path, geometry: Geometry, labels: Sequence[int], sources: Sequence[Any]) -> None:
    """Check before the work that a segmentation can be made, by making one of one voxel in memory.

    Args:
        path: the file to write, for messages.
        geometry: geometry of the volume.
        labels: the labels that the segmentation will describe.
        sources: headers of the volume's images; see `source_headers`.

    Raises:
        InputError: the source lacks fields that a segmentation needs.
    """
    array = np.zeros(geometry.shape, np.int32)
    array[0, 0, 0] = labels[0]
    _made(path, Labelmap(array, geometry), labels, sources)


def write_segmentation(
    path: Path, labelmap: Labelmap, labels: Sequence[int], sources: Sequence[Any]
) -> None:
    """Write a labelmap as a DICOM segmentation; an older file is replaced when it is complete.

    The segmentation has the patient and the study of the source and forms a new series. It
    describes every label, including those without a voxel, by name, colour and coded terms
    ("Tissue" if none are known).

    Args:
        path: the file; its name ends in .dcm.
        labelmap: the labelmap, on the grid of the volume.
        labels: the labels to describe; they include all labels of the labelmap.
        sources: headers of the volume's images; see `source_headers`.

    Raises:
        InputError: as `rehearse`, or the file cannot be written, or no space is left.
    """
    dataset = _made(path, labelmap, labels, sources)
    with appearing_whole(path) as written:
        dataset.save_as(written, enforce_file_format=True)
        back = read_segmentation(written, labelmap.geometry)
        numbers = segment_numbers(labels)
        if not np.array_equal(
            labelmap_onto(back, labelmap.geometry).array, _numbered(labelmap, numbers)
        ):
            raise InputError(
                f"'{path}' could not be written: the file holds other labels than were found",
                "Check the disk, or name an output in .seg.nrrd",
                code="unwritable",
            )


def _numbered(labelmap: Labelmap, numbers: dict[int, int]) -> NDArray[np.uint16]:
    """The labelmap's voxels with segment numbers in place of labels."""
    array = np.zeros(labelmap.array.shape, np.uint16)
    for label, number in numbers.items():
        array[labelmap.array == label] = number
    return array


def _made(path: Path, labelmap: Labelmap, labels: Sequence[int], sources: Sequence[Any]) -> Any:
    """The segmentation as a pydicom dataset."""
    highdicom = dicom_library("highdicom", path)
    seg = dicom_library("highdicom.seg", path)
    numbers = segment_numbers(labels)
    headers = [_completed(path, header, labelmap.geometry) for header in sources]
    segments = [_description(path, labelmap, label, number) for label, number in numbers.items()]
    try:
        with warnings.catch_warnings():
            # Warnings about unusual values in the source, such as names, which are copied.
            warnings.simplefilter("ignore")
            return seg.Segmentation(
                source_images=headers,
                pixel_array=_numbered(labelmap, numbers),
                segmentation_type=seg.SegmentationTypeValues.BINARY,
                segment_descriptions=segments,
                series_instance_uid=highdicom.UID(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=_PRODUCT,
                manufacturer_model_name=_PRODUCT,
                software_versions=__version__,
                device_serial_number="0",
                content_label="SEGMENTATION",
                content_description=f"Segmentation by {_PRODUCT}",
                series_description=f"{_PRODUCT} segmentation",
                # A segmentation must have at least one frame.
                omit_empty_frames=bool(labelmap.array.any()),
                # Names may be in any script.
                specific_character_set="ISO_IR 192",
                **_grid(path, labelmap.geometry),
            )
    # highdicom raises these exceptions for values of the source that it cannot use.
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"'{path}' cannot be written as a DICOM segmentation of this series: {error}",
            "Name an output in .seg.nrrd",
            code="unfit_source",
        ) from error


def _grid(path: Path, geometry: Geometry) -> dict[str, Any]:
    """The places of the frames, one for each slice of the volume."""
    highdicom = dicom_library("highdicom", path)
    i, j, _ = np.array(geometry.direction).reshape(3, 3).T
    step = geometry.affine[:3, 2]
    positions = [geometry.origin + number * step for number in range(geometry.size[2])]
    between_columns, between_rows, between_slices = geometry.spacing
    return {
        "plane_orientation": highdicom.PlaneOrientationSequence("PATIENT", [*i, *j]),
        "plane_positions": [
            highdicom.PlanePositionSequence("PATIENT", position) for position in positions
        ],
        "pixel_measures": highdicom.PixelMeasuresSequence(
            [between_rows, between_columns], between_slices, between_slices
        ),
    }


def _completed(path: Path, header: Any, geometry: Geometry) -> Any:
    """The header of an image, completed by fields that may be empty and are often missing."""
    for name, what in _NEEDED.items():
        if not header.get(name):
            raise InputError(
                f"the DICOM files do not give their {what} ({name}), to which '{path}' would refer",
                "Name an output in .seg.nrrd",
                code="unfit_source",
            )
    for name in _MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    if "NumberOfFrames" not in header and not header.get("SliceThickness"):
        header.SliceThickness = f"{geometry.spacing[2]:.10g}"
    if header.PatientSex not in _SEXES:
        header.PatientSex = ""
    return header


def _description(path: Path, labelmap: Labelmap, label: int, number: int) -> Any:
    """The description of one segment as an object of highdicom."""
    highdicom = dicom_library("highdicom", path)
    terms = terms_of(labelmap.terminologies.get(label, "")) or Terms(TISSUE, TISSUE)
    red, green, blue = (255 * part for part in colour_of(labelmap, label))
    described = dicom_library("highdicom.seg", path).SegmentDescription(
        segment_number=number,
        segment_label=_label_text(labelmap.names.get(label, ""), label),
        segmented_property_category=_coded(path, terms.category),
        segmented_property_type=_coded(path, terms.kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=_PRODUCT, version=__version__, family=_coded(path, _FAMILY)
        ),
        anatomic_regions=[_coded(path, terms.region)] if terms.region else None,
        display_color=dicom_library("highdicom.color", path).CIELabColor.from_rgb(red, green, blue),
    )
    if terms.modifier:
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_coded(path, terms.modifier)]
    if terms.region and terms.region_modifier:
        region = described.AnatomicRegionSequence[0]
        region.AnatomicRegionModifierSequence = [_coded(path, terms.region_modifier)]
    return described


def _coded(path: Path, code: Code) -> Any:
    concept = dicom_library("highdicom.sr", path).CodedConcept
    return concept(code.value, code.scheme, code.meaning[:_LONGEST])


def _label_text(name: str, label: int) -> str:
    """A name in the form that DICOM allows: no line break, no backslash, not too long."""
    plain = " ".join(name.replace("\\", "/").split())
    return plain[:_LONGEST].rstrip() or f"Segment_{label}"
