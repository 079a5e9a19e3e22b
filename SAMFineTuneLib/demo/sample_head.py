"""A real head with its lateral ventricles labelled, from what the package nilearn ships.

The image is the ICBM 152 (2009a, nonlinear, symmetric) T1 average of 152 healthy brains, and its
maps of grey and white matter (Fonov et al. 2011, "Unbiased average age-appropriate atlases for
pediatric studies", NeuroImage). The ventricles are what is neither, around two places in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import Geometry, Labelmap, write_labelmap, write_volume

VENTRICLES = 1
_NAME = "lateral ventricles"
_COLOUR = (0.2, 0.6, 0.9)
_RESOLUTION_MM = 1
# Millimetres right, front and up of the anterior commissure (RAS), one place in each ventricle.
_PLACES = ((-12.0, -10.0, 22.0), (12.0, -10.0, 22.0))


@dataclass(frozen=True, eq=False)
class SampleHead:
    """The image and the label on one grid."""

    image: np.ndarray
    truth: Labelmap


def load_sample_head() -> SampleHead:
    """The head at 1 mm, (k, j, i), with label 1 for the lateral ventricles.

    Raises:
        InputError: the package nilearn is not installed.
    """
    try:
        from nilearn.datasets import (
            load_mni152_gm_template,
            load_mni152_template,
            load_mni152_wm_template,
        )
    except ImportError as error:
        raise InputError(
            "the demonstration takes its image from the package nilearn, which is not installed",
            "install it: pip install nilearn",
            code="missing_package",
        ) from error
    head = load_mni152_template(resolution=_RESOLUTION_MM)
    grey_matter = load_mni152_gm_template(resolution=_RESOLUTION_MM)
    white_matter = load_mni152_wm_template(resolution=_RESOLUTION_MM)
    tissue = np.asarray(grey_matter.dataobj) + np.asarray(white_matter.dataobj)
    image = np.asarray(head.dataobj, dtype=np.float32)
    affine = np.asarray(head.affine, dtype=float)
    label = _ventricles(image, tissue, affine)
    # nibabel's arrays are (i, j, k) in RAS; ours are (k, j, i) in LPS.
    geometry = Geometry(
        size=image.shape,
        spacing=(float(_RESOLUTION_MM),) * 3,
        origin=(-affine[0, 3], -affine[1, 3], affine[2, 3]),
        direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    )
    grey = np.round(image / image.max() * 1000).astype(np.int16)
    truth = Labelmap(
        np.ascontiguousarray(label.T), geometry, {VENTRICLES: _NAME}, {VENTRICLES: _COLOUR}
    )
    return SampleHead(np.ascontiguousarray(grey.T), truth)


def _ventricles(image: np.ndarray, tissue: np.ndarray, affine: np.ndarray) -> np.ndarray:
    fluid = (tissue < 0.5) & (image > 0)
    regions = sitk.GetArrayFromImage(
        sitk.ConnectedComponent(sitk.GetImageFromArray(fluid.astype(np.uint8)))
    )
    indices = np.linalg.inv(affine) @ np.array([(*place, 1.0) for place in _PLACES]).T
    # sitk's arrays keep the order of the numpy array they were made from.
    chosen = {int(regions[tuple(index)]) for index in indices[:3].T.round().astype(int)} - {0}
    label: np.ndarray = np.isin(regions, sorted(chosen)).astype(np.uint8)
    return label


def write_sample(head: SampleHead, folder: Path, slices_shown: int) -> list[int]:
    """Writes head.nii.gz, truth.nrrd and labelled.nrrd, which keeps a few slices of the label.

    Returns:
        The numbers of the axial slices kept, evenly spaced from the first to the last.
    """
    present = np.flatnonzero(head.truth.array.any(axis=(1, 2)))
    shown = np.linspace(present[0], present[-1], slices_shown).round().astype(int).tolist()
    kept = np.zeros_like(head.truth.array)
    kept[shown] = head.truth.array[shown]
    labelled = Labelmap(kept, head.truth.geometry, head.truth.names, head.truth.colours)
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / "head.nii.gz", head.image, head.truth.geometry)
    write_labelmap(folder / "truth.seg.nrrd", head.truth)
    write_labelmap(folder / "labelled.seg.nrrd", labelled)
    return shown
