"""Official checkpoints: a cache of downloads, and strict loading of a file into a network.

Listing and clearing load neither a tensor library nor a client of the network, so that Slicer's
panel can offer them when it opens; `checkpoint_download` fetches.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from SAMFineTuneLib.networks.spec import BACKBONES, BackboneSpec, CheckpointSource
from SAMFineTuneLib.user_folders import cache_folder

if TYPE_CHECKING:
    from SAMFineTuneLib.networks.network import SamNetwork


@dataclass(frozen=True)
class CachedCheckpoint:
    """An official checkpoint and what the cache has of it.

    Attributes:
        name: the backbone's name.
        path: where the file lies, or would lie.
        present: whether the whole file is there; its hash is checked when it is fetched or used.
        bytes_present: bytes on disk, those of an interrupted download included.
        source: where it comes from.
        licence: SPDX identifier of the weights' licence.
    """

    name: str
    path: Path
    present: bool
    bytes_present: int
    source: CheckpointSource
    licence: str


@dataclass(frozen=True)
class LoadedCheckpoint:
    """Which file a network's weights came from."""

    path: Path
    sha256: str


def list_checkpoints() -> list[CachedCheckpoint]:
    """Every official checkpoint, with what the cache has of it."""
    return [
        _cached(spec, spec.checkpoint) for spec in BACKBONES.values() if spec.checkpoint is not None
    ]


def clear_checkpoints() -> int:
    """Removes every downloaded checkpoint, whole or interrupted; the bytes that this freed."""
    freed = 0
    for cached in list_checkpoints():
        freed += cached.bytes_present
        cached.path.unlink(missing_ok=True)
        part_file(cached.path).unlink(missing_ok=True)
    return freed


def load_checkpoint(network: SamNetwork, path: str | os.PathLike[str]) -> LoadedCheckpoint:
    """Loads a checkpoint file into a network as it was built, every tensor accounted for.

    Load before a head takes the mask decoder's place and before `adapt`: both change names.
    No code in the file is run. PyTorch files and safetensors are accepted; so are the weights
    in an entry "model" or "state_dict", and names that begin with "module.".

    Args:
        network: a network of the backbone that the file is for.
        path: the checkpoint file.

    Raises:
        InputError: no such file; damaged; holding pickled code; of another architecture.
    """
    from SAMFineTuneLib.weights.checkpoint_file import load_into

    file = Path(path)
    load_into(network, file)
    return LoadedCheckpoint(file, file_sha256(file))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def checkpoint_folder() -> Path:
    """The folder in the cache that holds the official checkpoints."""
    return cache_folder() / "checkpoints"


def part_file(path: Path) -> Path:
    """The file beside a checkpoint that holds what an interrupted download brought."""
    return path.with_name(path.name + ".part")


def _cached(spec: BackboneSpec, source: CheckpointSource) -> CachedCheckpoint:
    path = checkpoint_folder() / source.file_name
    sizes = {file: file.stat().st_size for file in (path, part_file(path)) if file.is_file()}
    return CachedCheckpoint(
        name=spec.name,
        path=path,
        present=sizes.get(path) == source.size,
        bytes_present=sum(sizes.values()),
        source=source,
        licence=spec.licence,
    )
