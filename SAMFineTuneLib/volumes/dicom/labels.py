"""Finds and reads segmentations that are DICOM objects."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.dicom.contours import read_contours
from SAMFineTuneLib.volumes.dicom.dataset import (
    CONTOURS,
    SEGMENTATIONS,
    dicom_class,
    files_below,
    read_dataset,
)
from SAMFineTuneLib.volumes.dicom.segmentation import read_segmentation
from SAMFineTuneLib.volumes.labelmap import Labelmap

_KINDS = {CONTOURS: "contours (RTSTRUCT)"} | dict.fromkeys(SEGMENTATIONS, "a segmentation (SEG)")


def dicom_labels(path: Path) -> Path | None:
    """The file of the DICOM segmentation or set of contours that a path names; None if it is none.

    Args:
        path: a file, or a folder that may hold one beside images.

    Raises:
        InputError: the folder holds several.
    """
    try:
        if not path.is_dir():
            return path if dicom_class(path) in _KINDS else None
        files = files_below(path)
    except OSError:
        return None
    found = [each for each in files if dicom_class(each) in _KINDS]
    if len(found) > 1:
        listed = ", ".join(_described(path, each) for each in found[:6])
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        raise InputError(
            f"'{path}' holds {len(found)} DICOM segmentations: {listed}{more}",
            "Name the file of the one to use",
            code="several_segmentations",
        )
    return found[0] if found else None


def needs_grid(path: Path) -> bool:
    """Whether a path names contours, which can be read only over the grid of an image.

    Raises:
        InputError: as `dicom_labels`.
    """
    found = dicom_labels(path)
    return found is not None and dicom_class(found) == CONTOURS


def dicom_labels_text(path: Path) -> str | None:
    """A text for the kind of a DICOM file that holds a segmentation; None for other files."""
    return _KINDS.get(dicom_class(path) or "")


def read_dicom_labels(
    path: Path,
    over: Geometry | None = None,
    wanted: Collection[int] | None = None,
    on_top: Sequence[str] = (),
) -> Labelmap:
    """The labelmap of a file that `dicom_labels` found; see `read_segmentation`, `read_contours`.

    Raises:
        InputError: as these two functions.
    """
    read = read_contours if dicom_class(path) == CONTOURS else read_segmentation
    return read(path, over, wanted, on_top)


def _described(folder: Path, path: Path) -> str:
    dataset = read_dataset(path, pixels=False)
    description = " ".join(str(dataset.get("SeriesDescription") or "").split())
    kind = "RTSTRUCT" if dicom_class(path) == CONTOURS else "SEG"
    return f"{path.relative_to(folder)} ({kind}{f', {description}' if description else ''})"
