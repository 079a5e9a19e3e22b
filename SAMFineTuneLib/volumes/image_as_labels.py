"""Recognises an image that was given instead of its segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.labelmap import Labelmap, present_labels
from SAMFineTuneLib.volumes.volume import Volume

# Files with fewer labels are taken for segmentations without further checks. Atlases have hundreds
# of labels, each of them a region.
_MANY_LABELS = 50
# The share of neighbouring labelled voxels with different labels from which on a file is taken for
# an image. In regions of two voxels along each axis one half of the neighbours differ; in images of
# organs most do.
_TOUCHING = 0.6


def require_structures(path: Path, array: NDArray[Any]) -> None:
    """Refuses values that look like the grey levels of an image.

    Raises:
        InputError: there are many labels, and most neighbouring voxels have different ones.
    """
    labels = present_labels(array)
    if len(labels) < _MANY_LABELS:
        return
    part = _differing_neighbours(array)
    if part >= _TOUCHING:
        raise InputError(
            f"'{path}' looks like an image, not a segmentation: it holds {len(labels)} different "
            f"values, and {part:.0%} of the voxels that touch have different ones",
            "Give the labels that were drawn on the image; if these are labels, name those that "
            "are meant",
            code="image_as_segmentation",
        )


def require_two_files(volume: Path, segmentation: Path) -> None:
    """Refuses a volume that is given as its own segmentation.

    Raises:
        InputError: both paths lead to the same file or folder.
    """
    if _one_file(volume, segmentation):
        raise _own_segmentation(volume, segmentation)


def require_other_values(
    volume: Volume, labelmap: Labelmap, volume_path: Path, segmentation: Path
) -> None:
    """Refuses a copy of a volume that is given as its segmentation, whatever its format.

    Raises:
        InputError: both have the same values.
    """
    if np.array_equal(volume.array, labelmap.array):
        raise _own_segmentation(volume_path, segmentation)


def same_labels_warning(
    prediction: Labelmap, reference: Labelmap, prediction_path: Path, reference_path: Path
) -> tuple[str, ...]:
    """A warning if a segmentation is measured against itself or a copy of itself."""
    if not np.array_equal(prediction.array, reference.array) or not reference.labels:
        return ()
    if _one_file(prediction_path, reference_path):
        what = "are one file"
    else:
        what = "have the same labels in every voxel"
    return (f"the prediction and the reference {what}: the figures say nothing of a model",)


def _own_segmentation(volume: Path, segmentation: Path) -> InputError:
    what = (
        "is given as its own segmentation"
        if _one_file(volume, segmentation)
        else f"has the same values as '{volume}'"
    )
    return InputError(
        f"'{segmentation}' {what}",
        "Give the labels that were drawn on the image; if this is a labelmap that is to be learnt "
        "from itself, name the labels that are meant",
        code="image_as_segmentation",
    )


def _one_file(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve()
    except (OSError, RuntimeError, ValueError):
        # No file can have this path; reading it reports why.
        return False


def _differing_neighbours(array: NDArray[Any]) -> float:
    """The share of neighbouring labelled voxels that have different labels.

    It is computed along each axis, and the smallest share is returned, because slices that lie far
    apart differ in a segmentation too.
    """
    parts = []
    for axis in range(array.ndim):
        one, other = (
            array[(slice(None),) * axis + (each,)] for each in (slice(1, None), slice(None, -1))
        )
        touching = (one != 0) & (other != 0)
        count = int(np.count_nonzero(touching))
        if count:
            parts.append(np.count_nonzero(touching & (one != other)) / count)
    return min(parts, default=0.0)
