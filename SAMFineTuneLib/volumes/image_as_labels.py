"""An image that was given in place of its segmentation: many grey levels that touch everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.labelmap import Labelmap, present_labels
from SAMFineTuneLib.volumes.volume import Volume

# Few labels are structures, however small; atlases have hundreds, each a region of its own.
_MANY_LABELS = 50
# Of neighbouring labelled voxels, how many have different labels. Regions of two voxels along each
# axis reach one half; in images of organs most neighbours differ.
_TOUCHING = 0.6


def require_structures(path: Path, array: NDArray[Any]) -> None:
    """Refuses values that look like grey levels.

    Raises:
        InputError: many labels, most of whose voxels touch another label.
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
        InputError: both names are of one file or folder.
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
    """What is said where a segmentation is measured against itself."""
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
        "Give the labels that were drawn on the image; if the labels are to be learnt from "
        "themselves, name those that are meant",
        code="image_as_segmentation",
    )


def _one_file(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve()
    except (OSError, RuntimeError, ValueError):
        # No file has such a name; why not is for the one to say who reads it.
        return False


def _differing_neighbours(array: NDArray[Any]) -> float:
    """Of voxels that touch along an axis, both labelled, the part with different labels.

    Of the axis where it is least: slices that lie far apart differ even in a segmentation.
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
