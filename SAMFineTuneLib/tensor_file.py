"""Tensors of a safetensors file, read rather than mapped into memory.

A process that looks into a mapped file dies without a word when the file is cut off meanwhile, or
when its disk or its network goes; reading fails in words.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

# Larger ones are mapped: for a moment a file that is read takes its size in memory once more.
_LARGEST_READ = 1 << 30

# What a file raises that is no such file, that is damaged, or that cannot be read.
UNREADABLE = (SafetensorError, OSError, ValueError, KeyError, TypeError)


def tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, on the CPU; one of `UNREADABLE` where it is damaged."""
    if path.stat().st_size > _LARGEST_READ:
        return dict(load_file(path))
    return dict(load(path.read_bytes()))
