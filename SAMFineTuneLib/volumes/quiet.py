"""Suppresses the lines that ITK and its libraries print when images are read and written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import SimpleITK as sitk

_SHEARED = "ITK_NIFTI_SFORM_PERMISSIVE"


@contextmanager
def itk_quiet() -> Iterator[None]:
    """Drop what ITK, GDCM, MetaIO and others print on stderr; exceptions are still raised.

    The libraries below ITK write to the file descriptor itself, so the descriptor is redirected.
    """
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    kept = _discard_stderr()
    try:
        yield
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


@contextmanager
def sheared_nifti_allowed() -> Iterator[None]:
    """Let ITK read the voxels of NIfTI files whose axes are not perpendicular.

    ITK straightens such axes, so the geometry that it gives for a NIfTI file must not be used.
    """
    before = os.environ.get(_SHEARED)
    os.environ[_SHEARED] = "YES"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SHEARED]
        else:
            os.environ[_SHEARED] = before


def _discard_stderr() -> int | None:
    """Redirect descriptor 2 to nowhere; returns a copy of the former one, None if there is none."""
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:
        return None
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    return kept
