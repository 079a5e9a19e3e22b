"""A cache of the frozen stages' features, computed once for each slice and augmented variant."""

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

# Disk space that the cache may take, and the fewest augmented variants of a slice for which a cache
# is worthwhile.
CACHE_BYTES = 4 * 1024**3
_FEWEST_VARIANTS = 4
_MOST_VARIANTS = 32
# Where time is limited, computing the features takes this share of it at most, as long as that
# gives each slice so many variants: a network whose slice takes seconds would otherwise compute new
# variants to the end, and make a step for every batch of them.
_SHARE_OF_TIME = 0.4
_VARIANTS_AT_ANY_PRICE = 8


class CachedSample(NamedTuple):
    """Features of one variant of one slice with the target that was augmented alike."""

    state: FeatureState
    target: Tensor


class FeatureCache:
    """Half-precision features in files, which the operating system keeps in memory where it can.

    The files are not mapped into memory, because a full disk would end a process that writes to
    mapped memory. Features that do not fit on the disk are computed again whenever they are needed.

    Args:
        folder: where the files go; another run cannot use them.
        example: one sample (features of batch 1), which sets the shapes.
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
        """Stores a sample of batch size 1 under (slice, variant), and returns it as `get` would.

        Where the disk is full, the sample is not stored.
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
            # Another program has truncated a file.
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
    """Arrays of one shape and type in a file, by their index; some may be missing."""

    def __init__(self, path: Path, kind: type[np.generic], example: Tensor) -> None:
        self._type = np.dtype(kind)
        self._shape = tuple(example.shape)
        self._bytes = example.numel() * self._type.itemsize
        self._file = path.open("w+b", buffering=0)

    def write(self, place: int, array: NDArray[Any]) -> None:
        """Raises OSError where the disk is full."""
        self._file.seek(place * self._bytes)
        left = memoryview(np.ascontiguousarray(array, self._type).tobytes())
        while left:
            left = left[self._file.write(left) :]

    def read(self, place: int) -> NDArray[Any] | None:
        """The array; None where the file is shorter."""
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
    """Free space on the disk of a folder that need not exist yet."""
    nearest = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(nearest).free


def worthwhile_variants(
    example: CachedSample,
    slices: int,
    samples: int,
    free_bytes: int,
    in_the_time: float = math.inf,
) -> int:
    """How many variants of each slice to cache; 0 where a cache is not worthwhile.

    It is worthwhile if each variant is drawn more than once, and if enough variants fit on the
    disk, because a network overfits to a few.

    Args:
        example: one sample, which sets the size.
        slices: how many slices there are.
        samples: how many samples the fine-tune will draw in all.
        free_bytes: free space on the disk; at most half of it is taken.
        in_the_time: how many samples can be computed in the time of the fine-tune.
    """
    tensors = (example.state.x, *example.state.skips)
    size = sum(2 * tensor.numel() for tensor in tensors) + 4 * example.target.numel()
    fitting = min(CACHE_BYTES, free_bytes // 2) // (size * slices)
    soon = max(_VARIANTS_AT_ANY_PRICE, _SHARE_OF_TIME * in_the_time / slices)
    variants = int(min(_MOST_VARIANTS, fitting, math.ceil(samples / slices / 2), soon))
    return variants if variants >= _FEWEST_VARIANTS else 0
