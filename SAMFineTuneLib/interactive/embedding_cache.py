"""A cache of slices' features: the latest ones in memory, all of a session on the disk.

Segment Anything takes seconds to embed a slice on a CPU, and the embedding takes two megabytes. The
files outlive the session: if the volume is opened again with the same model, nothing is computed
again. Features are stored in half precision, which moves no outline by a pixel.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from SAMFineTuneLib.interactive.bounded_cache import BoundedCache
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.tensor_file import UNREADABLE, tensors_of

MEMORY_BYTES = 256 << 20
DISK_BYTES = 2 << 30


class EmbeddingCache:
    """Half-precision features by name and slice number.

    Args:
        folder: holds the embeddings of all sessions; None keeps nothing on the disk.
        signature: identifies image, model and size; features stored under another signature are
            never returned.
        warn: called once with a text when the disk cannot be used.
        memory_bytes: the most that is kept in memory.
        disk_bytes: the most that all sessions together keep on the disk; the oldest files are
            deleted first.
    """

    def __init__(
        self,
        folder: Path | None,
        signature: str,
        warn: Callable[[str], None] = lambda text: None,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        self._root = folder
        self._folder = None if folder is None else folder / signature
        self._warn = warn
        self._disk_bytes = disk_bytes
        self._recent: BoundedCache[tuple[str, int], FeatureState] = BoundedCache(
            memory_bytes, _bytes
        )
        on_disk = [] if folder is None else _files(folder)
        own = [size for _, size, path in on_disk if path.parent == self._folder]
        self._used_on_disk = sum(size for _, size, _ in on_disk)
        self._own_bytes, self._largest_on_disk = sum(own), max(own, default=0)

    @property
    def is_full(self) -> bool:
        """Whether storing another slice would remove one of this session."""
        if self._folder is None:
            return self._recent.used_bytes + self._recent.largest > self._recent.most_bytes
        return self._own_bytes + self._largest_on_disk > _kept(self._disk_bytes)

    def __contains__(self, key: tuple[str, int]) -> bool:
        if key in self._recent:
            return True
        if self._folder is None:
            return False
        try:
            return self._path(self._folder, key).is_file()
        except OSError:
            # Without the right to read the folder, nothing in it can be used.
            return False

    def get(self, key: tuple[str, int]) -> FeatureState | None:
        """The features, half precision on the CPU; None when they have to be computed."""
        recent = self._recent.get(key)
        if recent is not None or self._folder is None:
            return recent
        path = self._path(self._folder, key)
        try:
            tensors = tensors_of(path)
            skips = sorted(name for name in tensors if name != "x")
            state = FeatureState(tensors["x"], tuple(tensors[name] for name in skips))
        except FileNotFoundError:
            # The file was never written, or the cache was cleared meanwhile.
            return None
        except UNREADABLE:
            # The file is cut off, as after a full disk or a power failure: the caller computes
            # the features again.
            size = _size(path)
            with suppress(OSError):
                path.unlink()
                self._own_bytes -= size
                self._used_on_disk -= size
            return None
        self._recent.put(key, state)
        return state

    def put(self, key: tuple[str, int], state: FeatureState) -> FeatureState:
        """Stores the features; returns them as `get` would."""
        half = FeatureState(_half(state.x), tuple(_half(each) for each in state.skips))
        self._recent.put(key, half)
        if self._folder is not None:
            self._write(self._folder, key, half)
        return half

    def _write(self, folder: Path, key: tuple[str, int], state: FeatureState) -> None:
        path = self._path(folder, key)
        part = path.with_suffix(f".{os.getpid()}.part")
        tensors = {"x": state.x}
        tensors |= {f"skip{number}": each for number, each in enumerate(state.skips)}
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                self._own_bytes = 0
            save_file(tensors, part)
            before, size = _size(path), _size(part)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            # From here on features are kept in memory alone, which is only slower.
            self._folder = None
            self._warn(f"embeddings are not kept on the disk any more: {error}")
            with suppress(OSError):
                part.unlink(missing_ok=True)
            return
        self._own_bytes += size - before
        self._used_on_disk += size - before
        self._largest_on_disk = max(self._largest_on_disk, size)
        if self._used_on_disk > self._disk_bytes and self._root is not None:
            self._used_on_disk = _remove_oldest(self._root, _kept(self._disk_bytes))

    @staticmethod
    def _path(folder: Path, key: tuple[str, int]) -> Path:
        name, number = key
        return folder / f"{name}_{number:05d}.safetensors"


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float16).contiguous()


def _bytes(state: FeatureState) -> int:
    return sum(each.numel() * each.element_size() for each in (state.x, *state.skips))


def _kept(bound: int) -> int:
    """The bytes that a clean-up leaves: below the bound, so that not every new file needs one."""
    return bound * 9 // 10


def _size(path: Path) -> int:
    """The size of a file in bytes; 0 if there is no such file."""
    return path.stat().st_size if path.is_file() else 0


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """The modification time, size in bytes and path of each file in the cache."""
    found = []
    for path in folder.glob("*/*"):
        with suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return found


def _remove_oldest(folder: Path, bound: int) -> int:
    """Deletes the oldest files until the rest is within the bound; returns the bytes left."""
    files = sorted(_files(folder))
    left = sum(size for _, size, _ in files)
    for _, size, path in files:
        if left <= bound:
            break
        with suppress(OSError):
            path.unlink()
            left -= size
            path.parent.rmdir()
    return left
