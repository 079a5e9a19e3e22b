"""DICOM segmentation objects for tests, and the places of their voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from SAMFineTuneLib.errors import InputError  # noqa: E402
from SAMFineTuneLib.volumes import Labelmap  # noqa: E402
from SAMFineTuneLib.volumes.image_grid import placed  # noqa: E402
from Testing.support.synthetic_dicom_objects import (  # noqa: E402
    AXIAL,
    CORONAL,
    OBLIQUE,
    SAGITTAL,
    Segment,
    Stack,
    code,
    write_seg,
)

# Not a multiple of eight pixels, so that frames begin within a byte.
ROWS, COLUMNS = 7, 5
ORIENTATIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}
LIVER = "Category~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Codes~^^~^^"
LEFT_KIDNEY = (
    "Category~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^7771000^Left~Codes"
    "~SCT^818983003^Abdomen~SCT^24028007^Right"
)


def pixels(*marked: tuple[int, int]) -> np.ndarray:
    """A frame with some pixels (row, column) marked."""
    frame = np.zeros((ROWS, COLUMNS), np.uint8)
    for row, column in marked:
        frame[row, column] = 1
    return frame


def marked(planes: dict[float, np.ndarray]) -> np.ndarray:
    """The voxels (k, row, column) that planes mark."""
    return np.array([(k, *place) for k, frame in planes.items() for place in np.argwhere(frame)])


def places_of(labelmap: Labelmap, label: int) -> np.ndarray:
    """LPS of the voxels of a label, by SimpleITK."""
    image = placed(sitk.GetImageFromArray(labelmap.array), labelmap.geometry)
    found = [
        image.TransformIndexToPhysicalPoint([int(i), int(j), int(k)])
        for k, j, i in np.argwhere(labelmap.array == label)
    ]
    return np.array(found).reshape(-1, 3)


def same_places(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two lists hold the same points, to a hundredth of a mm."""
    if len(one) != len(other):
        return False
    distances = np.linalg.norm(one[:, None] - other[None], axis=-1)
    return bool((distances.min(axis=1) < 0.01).all() and (distances.min(axis=0) < 0.01).all())


def refused(function: Any, *arguments: Any, **more: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        function(*arguments, **more)
    assert "\n" not in str(caught.value)
    return caught.value


LIVER_PLANES = {5.0: pixels((1, 1), (1, 2)), 2.0: pixels((1, 1), (6, 4)), 3.0: pixels((0, 4))}
SPLEEN_PLANES = {3.0: pixels((3, 3), (5, 0))}


def two_segments(path: Path, stack: Stack, **more: Any) -> None:
    liver = Segment(
        "Liver",
        LIVER_PLANES,
        (41661, 41167, 40792),
        code("123037004", "SCT", "Anatomical Structure"),
        code("10200004", "SCT", "Liver"),
        code("818983003", "SCT", "Abdomen"),
    )
    write_seg(path, stack, {1: liver, 2: Segment("Spleen", SPLEEN_PLANES)}, **more)
