"""Reads the tensors of a safetensors file, without mapping the file into memory.

A process that accesses a mapped file is killed without a message if the file is truncated, or if
its disk or network fails. Reading the file raises an exception instead.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

# Larger files are mapped, because a file that is read needs its size in memory twice for a moment.
_LARGEST_READ = 1 << 30

# The exceptions for a file that is no safetensors file, is damaged, or cannot be read.
UNREADABLE = (SafetensorError, OSError, ValueError, KeyError, TypeError)


def tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, on the CPU.

    Raises:
        Exception: one of `UNREADABLE`, if the file cannot be used.
    """
    if path.stat().st_size > _LARGEST_READ:
        return dict(load_file(path))
    return dict(load(path.read_bytes()))
