"""The two files through which masks pass between a program and its correction worker."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError

_PIECE = 1 << 22


def create(path: Path, shape: tuple[int, int, int]) -> None:
    """Makes a file of zeros for masks (k, j, i), one byte a voxel, with all its space taken.

    Space that is only promised is missed when a mask is written through memory, and then the
    process dies.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    size = int(np.prod(shape))
    zeros = bytes(min(size, _PIECE))
    try:
        with path.open("wb") as file:
            for start in range(0, size, _PIECE):
                file.write(zeros[: size - start])
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"the correction needs {size / 1e6:.0f} MB in {path.parent}, which cannot be written: "
            f"{error.strerror or error}",
            "free some space, or name another folder with SAMFINETUNE_CACHE",
            code="no_space",
        ) from error


def opened(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The masks (k, j, i), looked at through memory and written through it.

    Raises:
        InputError: the file is not there or has another size.
    """
    try:
        if path.stat().st_size != int(np.prod(shape)):
            raise InputError(f"{path} has the wrong size", "start the correction anew", "bad_file")
        masks: NDArray[np.uint8] = np.memmap(path, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened: {error}", "start the correction anew", "no_such_file"
        ) from error
    return masks
