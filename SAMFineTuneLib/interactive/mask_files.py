"""The two files through which masks pass between a program and its correction worker."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError

_PIECE = 1 << 22


def create(path: Path, shape: tuple[int, int, int]) -> None:
    """Makes a file of zeros for masks (k, j, i), one byte a voxel, with all its space taken.

    Every byte is written now: a process that writes into a mapped file whose disk space is not
    allocated dies when the disk is full. A process also dies if a file that it has mapped is
    truncated. So an existing file is replaced rather than rewritten, and a process that still has
    the old file mapped keeps seeing the old content.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    size = int(np.prod(shape))
    zeros = bytes(min(size, _PIECE))
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            for start in range(0, size, _PIECE):
                file.write(zeros[: size - start])
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"the correction needs {size / 1e6:.0f} MB in {path.parent}, which cannot be written: "
            f"{error.strerror or error}",
            "free some space, or name another folder with SAMFINETUNE_CACHE",
            code="no_space",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def opened(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The masks (k, j, i) as a memory-mapped array that can be read and written.

    Raises:
        InputError: the file is not there or has another size.
    """
    require_whole(path, shape)
    try:
        masks: NDArray[np.uint8] = np.memmap(path, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened: {error}", "start the correction anew", "no_such_file"
        ) from error
    return masks


def require_whole(path: Path, shape: tuple[int, int, int]) -> None:
    """Checks that a file of masks still has its size, before its mapped memory is accessed.

    A file that is truncated just after this check still ends the process; the two programs that
    share the file never truncate it.

    Raises:
        InputError: the file is not there or has another size.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened: {error.strerror or error}",
            "start the correction anew",
            "no_such_file",
        ) from error
    if size != int(np.prod(shape)):
        raise InputError(
            f"{path} has {size} bytes, not {int(np.prod(shape))}: another program has changed it",
            "start the correction anew",
            "bad_file",
        )
