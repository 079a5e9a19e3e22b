"""Features in front of the first stage that trains, computed once for each slice and variant."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.networks.staged_encoder import FeatureState

# Disk that the cache may take, and the fewest augmented variants of a slice that are worth it.
CACHE_BYTES = 4 * 1024**3
_FEWEST_VARIANTS = 4
_MOST_VARIANTS = 32


class CachedSample(NamedTuple):
    """Features of one variant of one slice with the target that was augmented alike."""

    state: FeatureState
    target: Tensor


class FeatureCache:
    """Half-precision features on disk, in files that the system keeps in memory where it can.

    They are written and read, not mapped into memory: a disk that is full would end the process
    that writes through memory. So what does not fit is computed again whenever it is needed.

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
            _Records(folder / f"features_{number}.bin", np.float16, tensor[0])
            for number, tensor in enumerate(tensors)
        ]
        self._targets = _Records(folder / "targets.bin", np.int32, example.target)

    def __contains__(self, key: tuple[int, int]) -> bool:
        return bool(self._filled[key])

    def put(self, key: tuple[int, int], sample: CachedSample) -> CachedSample:
        """Keeps a sample, given with batch size 1, under (slice, variant); gives it as `get` would.

        Where the disk is full it is not kept.
        """
        tensors = (sample.state.x, *sample.state.skips)
        arrays = [each[0].detach().to("cpu", torch.float16).numpy() for each in tensors]
        target = sample.target.to(torch.int32).numpy()
        try:
            for store, array in zip(self._features, arrays, strict=True):
                store.write(self._place(key), array)
            self._targets.write(self._place(key), target)
            self._filled[key] = True
        except OSError:
            self._filled[key] = False
        return _sample(arrays, target)

    def get(self, key: tuple[int, int]) -> CachedSample | None:
        """The sample under (slice, variant), on the CPU, batch size 1; None where there is none."""
        if not self._filled[key]:
            return None
        arrays = [store.read(self._place(key)) for store in (*self._features, self._targets)]
        found = [each for each in arrays if each is not None]
        if len(found) < len(arrays):
            # Somebody cut a file off.
            self._filled[key] = False
            return None
        return _sample(found[:-1], found[-1])

    def remove(self) -> None:
        """Deletes the files; the cache is of no use afterwards."""
        # A file that is still open cannot be deleted on Windows.
        for store in (*self._features, self._targets):
            store.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self, key: tuple[int, int]) -> int:
        number, variant = key
        return number * self.variants + variant


class _Records:
    """Arrays of one shape and type in a file, by their place in it; places may stay empty."""

    def __init__(self, path: Path, kind: type[np.generic], example: Tensor) -> None:
        self._type = np.dtype(kind)
        self._shape = tuple(example.shape)
        self._bytes = example.numel() * self._type.itemsize
        self._file = path.open("w+b", buffering=0)

    def write(self, place: int, array: NDArray[Any]) -> None:
        """OSError where the disk is full."""
        self._file.seek(place * self._bytes)
        left = memoryview(np.ascontiguousarray(array, self._type).tobytes())
        while left:
            left = left[self._file.write(left) :]

    def read(self, place: int) -> NDArray[Any] | None:
        """None where the file is shorter."""
        try:
            self._file.seek(place * self._bytes)
            data = bytearray(self._file.read(self._bytes))
        except OSError:
            return None
        if len(data) < self._bytes:
            return None
        return np.frombuffer(data, self._type).reshape(self._shape)

    def close(self) -> None:
        self._file.close()


def _sample(arrays: Sequence[NDArray[Any]], target: NDArray[Any]) -> CachedSample:
    first, *rest = (torch.from_numpy(each)[None] for each in arrays)
    return CachedSample(FeatureState(first, tuple(rest)), torch.from_numpy(target))


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
