"""Recognises DICOM segmentations and contours, and reads the fields of DICOM files."""

from __future__ import annotations

import importlib
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from SAMFineTuneLib.errors import InputError

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
SEGMENTATIONS = frozenset({_SEGMENTATION, _LABEL_MAP_SEGMENTATION})
CONTOURS = "1.2.840.10008.5.1.4.1.1.481.3"

# The preamble before the four letters "DICM" (DICOM part 10, 7.1).
_PREAMBLE = 128
_BEGINNING = 4096
# Tag (0002,0002), Media Storage SOP Class UID, with its type; the file's own fields are always
# explicit little endian.
_CLASS_FIELD = b"\x02\x00\x02\x00UI"

# The exceptions, besides its own, that pydicom raises for fields that violate the standard.
_FAULTS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def dicom_class(path: Path) -> str | None:
    """The SOP class of a DICOM file by its first bytes; None for files of other formats.

    No DICOM library is needed, so every file can be checked.

    Args:
        path: a file; the result is None if it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_BEGINNING)
    except OSError:
        return None
    if start[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return None
    found = start.find(_CLASS_FIELD, _PREAMBLE + 4)
    length = start[found + len(_CLASS_FIELD) : found + len(_CLASS_FIELD) + 2]
    if found < 0 or len(length) < 2:
        return ""
    begin = found + len(_CLASS_FIELD) + 2
    value = start[begin : begin + int.from_bytes(length, "little")]
    return value.decode("ascii", "replace").rstrip("\0 ")


def is_dicom(path: Path) -> bool:
    """Whether a file begins like a DICOM file."""
    return dicom_class(path) is not None


def files_below(folder: Path) -> list[Path]:
    """The files in a folder; if it holds no file, those of all folders below it."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return files or sorted(path for path in folder.rglob("*") if path.is_file())


def dicom_library(name: str, path: Path) -> ModuleType:
    """A module of the DICOM libraries, which are optional and imported only here.

    Args:
        name: name of the module, such as "pydicom" or "highdicom.seg".
        path: the file for which it is needed, for the message.

    Raises:
        InputError: the libraries are not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"the Python packages highdicom and pydicom, which '{path}' needs, are not installed",
            "Install them: pip install highdicom pydicom",
            code="missing_package",
            packages="highdicom pydicom",
        ) from error


def read_dataset(path: Path, *, pixels: bool = True) -> Any:
    """The fields of a DICOM file as a pydicom dataset.

    Args:
        path: the file.
        pixels: False leaves out the voxels.

    Raises:
        InputError: pydicom is not installed, or the file is damaged.
    """
    pydicom = dicom_library("pydicom", path)
    with damaged_if_it_fails(path):
        return pydicom.dcmread(path, stop_before_pixels=not pixels)


@contextmanager
def damaged_if_it_fails(path: Path) -> Iterator[None]:
    """Turns exceptions of pydicom into an `InputError`; for code that reads fields of a file.

    pydicom converts a field when it is accessed, so a fault in the file causes an error only then.
    """
    errors = dicom_library("pydicom.errors", path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (*_FAULTS, errors.BytesLengthException, errors.InvalidDicomError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> InputError:
    short = " ".join(reason.split())[:150]
    return InputError(
        f"the DICOM file '{path}' is damaged or violates the standard: {short}",
        "Export it again from the program that wrote it",
        code="damaged_image",
    )
