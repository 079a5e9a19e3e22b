"""Suppresses the lines that ITK and its libraries print when images are read and written.

What is changed for it belongs to the whole process, and files are read in several threads: the
first thread that enters changes it, and the last one that leaves puts it back.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import SimpleITK as sitk

_SHEARED = "ITK_NIFTI_SFORM_PERMISSIVE"


class _SharedChange:
    """A change of the process that holds while any thread is within it.

    Args:
        make: makes the change, and returns what puts it back.
    """

    def __init__(self, make: Callable[[], Callable[[], None]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._within = 0
        self._undo: Callable[[], None] | None = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self._lock:
            if not self._within:
                self._undo = self._make()
            self._within += 1
        try:
            yield
        finally:
            with self._lock:
                self._within -= 1
                if not self._within and self._undo is not None:
                    self._undo()


@contextmanager
def itk_quiet() -> Iterator[None]:
    """Drop what ITK, GDCM, MetaIO and others print on stderr; exceptions are still raised.

    The libraries below ITK write to the file descriptor itself, so the descriptor is redirected.
    """
    with _QUIET.entered():
        yield


@contextmanager
def sheared_nifti_allowed() -> Iterator[None]:
    """Let ITK read the voxels of NIfTI files whose axes are not perpendicular.

    ITK straightens such axes, so the geometry that it gives for a NIfTI file must not be used.
    """
    with _SHEARED_ALLOWED.entered():
        yield


def _make_quiet() -> Callable[[], None]:
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    kept = _discard_stderr()

    def undo() -> None:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)

    return undo


def _allow_sheared() -> Callable[[], None]:
    before = os.environ.get(_SHEARED)
    os.environ[_SHEARED] = "YES"

    def undo() -> None:
        if before is None:
            os.environ.pop(_SHEARED, None)
        else:
            os.environ[_SHEARED] = before

    return undo


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


_QUIET = _SharedChange(_make_quiet)
_SHEARED_ALLOWED = _SharedChange(_allow_sheared)
