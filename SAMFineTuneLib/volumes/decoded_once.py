"""Keeps what was read of a file while a job reads frame after frame of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

Found = TypeVar("Found")

# A case has at most three images and a segmentation; each may be a file with an axis of time.
_FILES = 4

_files: ContextVar[OrderedDict[Path, dict[str, Any]] | None] = ContextVar("files", default=None)


@contextmanager
def decoded_once() -> Iterator[None]:
    """Within this block headers of a DICOM folder are read once, and files for all their frames.

    A file that must be decoded whole to read one frame is kept as it was decoded. What was read of
    the four files that were used last stays in memory until the block ends. A block within another
    one knows what that one has read, and keeps the rest for itself.
    """
    before: Mapping[Path, dict[str, Any]] = _files.get() or {}
    token = _files.set(OrderedDict((path, dict(found)) for path, found in before.items()))
    try:
        yield
    finally:
        _files.reset(token)


def kept(path: Path, what: str, decode: Callable[[], Found]) -> Found:
    """What `decode` gives; within `decoded_once` it is called once for each file and `what`."""
    files = _files.get()
    if files is None:
        return decode()
    if path not in files and len(files) >= _FILES:
        files.popitem(last=False)
    of_file = files.setdefault(path, {})
    files.move_to_end(path)
    if what not in of_file:
        of_file[what] = decode()
    found: Found = of_file[what]
    return found
