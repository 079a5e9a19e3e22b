"""Features in front of the first stage that trains, computed once for each slice and variant."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.backbones.staged_encoder import FeatureState

# Disk that the cache may take, and the fewest augmented variants of a slice that are worth it.
CACHE_BYTES = 4 * 1024**3
_FEWEST_VARIANTS = 4
_MOST_VARIANTS = 32


class CachedSample(NamedTuple):
    """Features of one variant of one slice with the target that was augmented alike."""

    state: FeatureState
    target: Tensor


class FeatureCache:
    """Half-precision features on disk, in memory-mapped files that the system pages.

    Args:
        folder: where the files go; they are of no use to another run.
        example: one sample (features of batch 1), which sets shapes.
        slices: how many slices there are.
        variants: augmented variants of each slice.
    """

    def __init__(self, folder: Path, example: CachedSample, slices: int, variants: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.variants = variants
        self._filled = np.zeros((slices, variants), dtype=bool)
        tensors = (example.state.x, *example.state.skips)
        self._features = [
            _memory_map(folder / f"features_{number}.bin", np.float16, slices, variants, tensor[0])
            for number, tensor in enumerate(tensors)
        ]
        self._targets = _memory_map(
            folder / "targets.bin", np.int32, slices, variants, example.target
        )

    def __contains__(self, key: tuple[int, int]) -> bool:
        return bool(self._filled[key])

    def put(self, key: tuple[int, int], sample: CachedSample) -> None:
        """Keeps a sample, given with batch size 1, under (slice, variant)."""
        for store, tensor in zip(
            self._features, (sample.state.x, *sample.state.skips), strict=True
        ):
            store[key] = tensor[0].detach().to("cpu", torch.float16).numpy()
        self._targets[key] = sample.target.numpy()
        self._filled[key] = True

    def get(self, key: tuple[int, int]) -> CachedSample:
        """The sample under (slice, variant), on the CPU, batch size 1."""
        first, *rest = (torch.from_numpy(store[key].copy())[None] for store in self._features)
        return CachedSample(
            FeatureState(first, tuple(rest)), torch.from_numpy(self._targets[key].copy())
        )

    def remove(self) -> None:
        """Deletes the files; the cache is of no use afterwards."""
        # A file that is still mapped cannot be deleted on Windows.
        self._features.clear()
        del self._targets
        shutil.rmtree(self._folder, ignore_errors=True)


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder that need not exist yet."""
    nearest = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(nearest).free


def worthwhile_variants(example: CachedSample, slices: int, samples: int, free_bytes: int) -> int:
    """How many variants of each slice to cache; 0 when caching does not pay.

    It pays when each variant is drawn more than once, and when enough variants fit on the disk
    that the network does not learn them by heart.

    Args:
        example: one sample, for its size.
        slices: how many slices there are.
        samples: how many samples the fine-tune will draw in all.
        free_bytes: room on the disk; at most half of it is taken.
    """
    tensors = (example.state.x, *example.state.skips)
    size = sum(2 * tensor.numel() for tensor in tensors) + 4 * example.target.numel()
    fitting = min(CACHE_BYTES, free_bytes // 2) // (size * slices)
    variants = int(min(_MOST_VARIANTS, fitting, math.ceil(samples / slices / 2)))
    return variants if variants >= _FEWEST_VARIANTS else 0


def _memory_map(path: Path, kind: type, slices: int, variants: int, example: Tensor) -> np.memmap:
    # A sparse file: only what is written takes room.
    return np.memmap(path, dtype=kind, mode="w+", shape=(slices, variants, *example.shape))
