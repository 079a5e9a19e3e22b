"""What an exception means to the user: the kind of fault, what is wrong, and what to do."""

from __future__ import annotations

import errno

from SAMFineTuneLib.errors import Cancelled, InputError
from SAMFineTuneLib.files import is_impossible, shown
from SAMFineTuneLib.worker.events import ErrorEvent

EXIT_DONE = 0
EXIT_OUR_FAULT = 1
EXIT_BAD_INPUT = 2
EXIT_CANCELLED = 3

_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to allocate memory",
)
_DISK_TEXTS = ("no space left on device", "disk quota exceeded", "not enough space on the disk")
_DISK_ERRORS = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_WINDOWS_DISK_FULL = {39, 112}
_ACCESS_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS}


def error_event(error: BaseException) -> ErrorEvent:
    """The last event of a job that ended with this exception."""
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return ErrorEvent(code="cancelled", message="Cancelled", exit_code=EXIT_CANCELLED)
    known = error if isinstance(error, InputError) else _shortage(error)
    if known is not None:
        return ErrorEvent(
            code=known.code,
            message=known.message,
            remedy=known.remedy,
            facts=known.facts,
            exit_code=EXIT_BAD_INPUT,
        )
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return ErrorEvent(
        code="internal",
        message=f"A fault in the program ({what})",
        remedy="Please report it with the file worker.log of the job folder",
        exit_code=EXIT_OUR_FAULT,
    )


def _shortage(error: BaseException) -> InputError | None:
    """An InputError for a shortage of memory or disk, a bad path or a missing right; else None."""
    message = str(error).lower()
    full = isinstance(error, OSError) and (
        error.errno in _DISK_ERRORS or getattr(error, "winerror", None) in _WINDOWS_DISK_FULL
    )
    if full or any(text in message for text in _DISK_TEXTS):
        place = f" for {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return InputError(
            f"No space left on the disk{place}",
            "Free some space, or name an output on another disk",
            code="no_space",
        )
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(text in message for text in _MEMORY_TEXTS)
    ):
        return InputError(
            "Not enough memory for this work",
            "Take a smaller batch, a smaller input size or a smaller backbone, compute on the CPU, "
            "or close other programs",
            code="no_memory",
        )
    if isinstance(error, OSError) and error.filename and is_impossible(error):
        return InputError(
            f"'{shown(error.filename)}' cannot be the name of a file: {error.strerror}",
            "Name another file",
            code="bad_path",
        )
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return InputError("a path holds a NUL character", "Name another file", code="bad_path")
    if isinstance(error, OSError) and error.errno in _ACCESS_ERRORS and error.filename:
        return InputError(
            f"{error.filename} cannot be opened: {error.strerror}",
            "Name another file or folder, or ask for the right to use this one",
            code="no_access",
        )
    return None
