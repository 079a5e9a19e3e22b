"""A head with labelled lateral ventricles, made from three files of a brain atlas.

The ventricles are the regions that are neither grey nor white matter and contain one of two places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.demo.atlas_files import GREY_MATTER, T1, WHITE_MATTER, installed_atlas
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import (
    Geometry,
    Labelmap,
    read_volume,
    write_labelmap,
    write_volume,
)

VENTRICLES = 1
_NAME = "lateral ventricles"
# Colour and terminology of 3D Slicer's list of anatomical structures.
_COLOUR = (88 / 255, 106 / 255, 215 / 255)
_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^66720007^Lateral ventricle~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
# One place in each ventricle: millimetres to the right, front and top of the anterior commissure
# (RAS).
_PLACES = ((-12.0, -10.0, 22.0), (12.0, -10.0, 22.0))
_BRIGHTEST = 1000


@dataclass(frozen=True, eq=False)
class SampleHead:
    """The image and its labels, on the same grid."""

    image: NDArray[np.int16]
    truth: Labelmap


def load_sample_head(folder: Path | None = None) -> SampleHead:
    """The head at 1 mm, (k, j, i), with label 1 for the lateral ventricles.

    Args:
        folder: the folder of the three files; by default that of the package nilearn.

    Raises:
        InputError: a file cannot be read, or no folder is given and nilearn is not installed.
    """
    folder = folder or installed_atlas()
    if folder is None:
        raise InputError(
            "the demonstration takes its image from the package nilearn, which is not installed",
            "install it: pip install nilearn",
            code="missing_package",
        )
    head = read_volume(folder / T1.name)
    brightness = _share_of_maximum(head.array)
    tissue = sum(
        _share_of_maximum(read_volume(folder / each.name).array)
        for each in (GREY_MATTER, WHITE_MATTER)
    )
    label = _around_places((tissue < 0.5) & (brightness > 0), head.geometry)
    truth = Labelmap(
        label,
        head.geometry,
        names={VENTRICLES: _NAME},
        colours={VENTRICLES: _COLOUR},
        terminologies={VENTRICLES: _TERMINOLOGY},
    )
    return SampleHead(np.round(brightness * _BRIGHTEST).astype(np.int16), truth)


def _share_of_maximum(array: NDArray[np.generic]) -> NDArray[np.float32]:
    values = array.astype(np.float32)
    values /= values.max()
    return values


def _around_places(mask: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.uint8]:
    """The connected regions of a mask that contain one of the places, as label 1."""
    image = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
    regions = sitk.GetArrayViewFromImage(image)
    places = np.array([(-right, -front, up, 1.0) for right, front, up in _PLACES])
    indices = (places @ np.linalg.inv(geometry.affine).T)[:, :3].round().astype(int)
    chosen = {int(regions[k, j, i]) for i, j, k in indices} - {0}
    label: NDArray[np.uint8] = np.isin(regions, sorted(chosen)).astype(np.uint8)
    return label


def few_slices(truth: Labelmap, count: int) -> tuple[Labelmap, list[int]]:
    """The label on a few axial slices, evenly spaced from its first to its last.

    Returns:
        The labelmap, empty elsewhere, and the numbers of the slices.
    """
    present = np.flatnonzero(truth.array.any(axis=(1, 2)))
    shown = np.linspace(present[0], present[-1], count).round().astype(int).tolist()
    kept = np.zeros_like(truth.array)
    kept[shown] = truth.array[shown]
    return replace(truth, array=kept), shown


def write_sample(head: SampleHead, folder: Path, slices_shown: int) -> list[int]:
    """Writes head.nii.gz, truth.seg.nrrd, and labelled.seg.nrrd with a few slices of the label.

    Returns:
        The numbers of the axial slices kept.
    """
    labelled, shown = few_slices(head.truth, slices_shown)
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / "head.nii.gz", head.image, head.truth.geometry)
    write_labelmap(folder / "truth.seg.nrrd", head.truth)
    write_labelmap(folder / "labelled.seg.nrrd", labelled)
    return shown
