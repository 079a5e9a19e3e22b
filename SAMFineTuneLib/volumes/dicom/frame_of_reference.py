"""Compares the frames of reference of a DICOM segmentation and an image."""

from __future__ import annotations

from pathlib import Path

from SAMFineTuneLib.volumes.dicom.dataset import (
    CONTOURS,
    SEGMENTATIONS,
    damaged_if_it_fails,
    dicom_class,
    dicom_library,
    files_below,
)
from SAMFineTuneLib.volumes.labelmap import Labelmap


def other_frame_of_reference(
    labelmap: Labelmap, segmentation: Path, volume: Path
) -> tuple[str, ...]:
    """A remark if the segmentation has another frame of reference than the image.

    Positions in two frames of reference need not fit together, because the patient may have moved.

    Args:
        labelmap: the segmentation as it was read.
        segmentation: its file, named in the remark.
        volume: the image's file or folder; there is no remark if it is not DICOM.
    """
    if not labelmap.frame_of_reference:
        return ()
    files = files_below(volume) if volume.is_dir() else [volume]
    known = {_of(path) for path in files if _is_image(path)} - {""}
    if not known or labelmap.frame_of_reference in known:
        return ()
    return (
        f"{segmentation.name} was made in another DICOM frame of reference than {volume.name}: "
        "check that it lies at the right place",
    )


def _is_image(path: Path) -> bool:
    return dicom_class(path) not in (None, CONTOURS, *SEGMENTATIONS)


def _of(path: Path) -> str:
    pydicom = dicom_library("pydicom", path)
    with damaged_if_it_fails(path):
        dataset = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"]
        )
        return str(dataset.get("FrameOfReferenceUID") or "")
