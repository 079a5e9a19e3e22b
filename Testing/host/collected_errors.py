"""What went wrong where no caller could see it: in slots, observers, .ui files and VTK.

Slicer prints such failures and goes on. Here they are kept, and a test that leaves any fails.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import vtk

errors: list[str] = []
# Said by VTK about the machine, which has no screen.
_HARMLESS = ("bad X server connection",)
# Kept alive for VTK, which holds its observers' commands only as long as their objects.
_vtk_windows: list[vtk.vtkOutputWindow] = []


def record(message: str) -> None:
    """Keeps a failure and shows it on standard error."""
    errors.append(message)
    print(message, file=sys.stderr)


def record_exception() -> None:
    """Keeps the exception that is being handled."""
    record(traceback.format_exc())


@contextmanager
def expected_errors(text: str) -> Iterator[list[str]]:
    """Takes the errors of the block out of the collection; at least one must hold `text`.

    Raises:
        AssertionError: no error of the block holds `text`.
    """
    before = len(errors)
    taken: list[str] = []
    yield taken
    taken.extend(errors[before:])
    del errors[before:]
    if not any(text in error for error in taken):
        raise AssertionError(f"no error with {text!r} among {taken}")


def collect_uncaught() -> None:
    """Has exceptions of slots and VTK observers, and VTK's own errors and warnings, collected."""
    sys.excepthook = _take_uncaught
    sys.unraisablehook = _take_unraisable
    # The window writes the same messages.
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToAlwaysStdErr()
    for event in (vtk.vtkCommand.ErrorEvent, vtk.vtkCommand.WarningEvent):
        window.AddObserver(event, _take_vtk_message)
    vtk.vtkOutputWindow.SetInstance(window)
    _vtk_windows.append(window)


def _take_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    record("".join(traceback.format_exception(kind, error, trace)))


def _take_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    trace = traceback.format_exception(
        unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback
    )
    record(f"{unraisable.err_msg or 'Exception ignored'}: {unraisable.object!r}\n" + "".join(trace))


def _take_vtk_message(window: vtk.vtkOutputWindow, event: str, text: str) -> None:
    # The window has written the text on standard error by itself.
    if not any(words in text for words in _HARMLESS):
        errors.append(text)


_take_vtk_message.CallDataType = "string0"
