"""Keeps standard output for the worker's own lines, whatever libraries print, in Python or C."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

from SAMFineTuneLib.worker.line_splitter import LineSplitter

_OUTPUT = 1
_ERRORS = 2


def claim_output() -> TextIO | None:
    """A stream to the present standard output; None if this process has none."""
    try:
        return os.fdopen(os.dup(_OUTPUT), "w", encoding="utf-8", newline="\n")
    except OSError:
        return None


@contextmanager
def output_as_lines(on_line: Callable[[str], None]) -> Iterator[None]:
    """Pass every line that is printed to standard output to a function.

    Afterwards standard output leads to standard error, so that text that a C library has buffered
    and prints only when the process ends does not get between the worker's own lines.

    Args:
        on_line: called with each line, from another thread.
    """
    _flush()
    reading, writing = os.pipe()
    os.dup2(writing, _OUTPUT)
    os.close(writing)
    _write_at_once()
    reader = threading.Thread(target=_read_lines, args=(reading, on_line), daemon=True)
    reader.start()
    try:
        yield
    finally:
        _flush()
        _lead_to_errors()
        # A child process that still runs may keep the pipe open, so the wait is limited.
        reader.join(timeout=1.0)


@contextmanager
def output_on_errors() -> Iterator[None]:
    """Within the context, send to standard error what is printed to standard output."""
    _flush()
    try:
        kept = os.dup(_OUTPUT)
    except OSError:
        yield
        return
    _lead_to_errors()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()
        os.dup2(kept, _OUTPUT)
        os.close(kept)


def _lead_to_errors() -> None:
    try:
        os.dup2(_ERRORS, _OUTPUT)
    except OSError:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - os.devnull is no path on Windows
            os.dup2(nowhere.fileno(), _OUTPUT)


def _write_at_once() -> None:
    # A new stream is needed, because one that was opened on a file cannot be switched to a pipe.
    sys.stdout = io.TextIOWrapper(
        io.FileIO(_OUTPUT, "w", closefd=False),
        encoding="utf-8",
        errors="backslashreplace",
        write_through=True,
    )


def _flush() -> None:
    """Empty the buffers of Python and of the C library."""
    with suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.flush()
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
        library.fflush(None)


def _read_lines(descriptor: int, on_line: Callable[[str], None]) -> None:
    splitter = LineSplitter()
    with open(descriptor, "rb", buffering=0) as pipe:
        while data := pipe.read(65536):
            _hand_over(splitter.feed(data), on_line)
        _hand_over(splitter.rest(), on_line)


def _hand_over(lines: list[str], on_line: Callable[[str], None]) -> None:
    for line in lines:
        text = line.rstrip()
        if text:
            on_line(text)
