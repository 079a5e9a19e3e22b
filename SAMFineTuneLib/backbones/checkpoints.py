"""Official checkpoints: a cache of downloads, and strict loading of a file into a network.

Listing, fetching and clearing load no tensor library, so that a program that must not have one
in its process can offer them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pooch
import requests

from SAMFineTuneLib.backbones.registry import BACKBONES, BackboneSpec, CheckpointSource, find
from SAMFineTuneLib.backbones.resumable_download import Progress, ResumableDownload
from SAMFineTuneLib.errors import InputError

if TYPE_CHECKING:
    from SAMFineTuneLib.backbones.network import SamNetwork

CACHE_VARIABLE = "SAMFINETUNE_CACHE"


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


def cache_folder() -> Path:
    """This user's folder for what can be fetched again; SAMFINETUNE_CACHE names another one."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("SAMFineTune"))


def embeddings_folder() -> Path:
    """Where corrections keep what networks made of slices, to have it again at once."""
    return cache_folder() / "embeddings"


def list_checkpoints() -> list[CachedCheckpoint]:
    """Every official checkpoint, with what the cache has of it."""
    return [
        _cached(spec, spec.checkpoint) for spec in BACKBONES.values() if spec.checkpoint is not None
    ]


def get_checkpoint(name: str, progress: Progress | None = None) -> Path:
    """The official checkpoint of a backbone, from the cache or from its source.

    An interrupted download goes on where it stopped, in this call or in the next one.

    Args:
        name: a backbone that has an official checkpoint.
        progress: called with (bytes so far, bytes in all) while bytes arrive.

    Raises:
        InputError: no such backbone or no download for it; source out of reach; no space left;
            a file that is not the official one.
    """
    source = find(name).checkpoint
    if source is None:
        raise InputError(
            f"backbone {name} has no checkpoint to download", "Start without one", "no_checkpoint"
        )
    folder = _checkpoint_folder()
    download = ResumableDownload(_part(folder / source.file_name), source.size, progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_space(folder, source)
        return Path(_retrieve(source, folder, download))
    except requests.RequestException as error:
        raise _unreachable(name, source, folder, error) from error
    except OSError as error:
        raise _unwritable(folder, source, error) from error
    except ValueError as error:
        # pooch has no class of its own for a file whose hash is wrong.
        raise InputError(
            f"{source.url} brought a file whose SHA-256 is not that of {source.file_name}",
            "Try again; if it stays so, get the file elsewhere and name it with --checkpoint",
            "checkpoint_hash",
        ) from error


def clear_checkpoints() -> int:
    """Removes every downloaded checkpoint, whole or interrupted; the bytes that this freed."""
    freed = 0
    for cached in list_checkpoints():
        freed += cached.bytes_present
        cached.path.unlink(missing_ok=True)
        _part(cached.path).unlink(missing_ok=True)
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
    from SAMFineTuneLib.backbones.checkpoint_file import load_into

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


def _checkpoint_folder() -> Path:
    return cache_folder() / "checkpoints"


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _cached(spec: BackboneSpec, source: CheckpointSource) -> CachedCheckpoint:
    path = _checkpoint_folder() / source.file_name
    sizes = {file: file.stat().st_size for file in (path, _part(path)) if file.is_file()}
    return CachedCheckpoint(
        name=spec.name,
        path=path,
        present=sizes.get(path) == source.size,
        bytes_present=sum(sizes.values()),
        source=source,
        licence=spec.licence,
    )


def _retrieve(source: CheckpointSource, folder: Path, download: Callable[..., None]) -> str:
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        path: str = pooch.retrieve(
            source.url,
            known_hash=f"sha256:{source.sha256}",
            fname=source.file_name,
            path=folder,
            downloader=download,
        )
        return path
    finally:
        logger.setLevel(level)


def _require_space(folder: Path, source: CheckpointSource) -> None:
    path = folder / source.file_name
    present = sum(file.stat().st_size for file in (path, _part(path)) if file.is_file())
    if shutil.disk_usage(folder).free < source.size - present:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unreachable(
    name: str, source: CheckpointSource, folder: Path, error: requests.RequestException
) -> InputError:
    return InputError(
        f"could not download {source.url} ({_reason(error)})",
        f"Check the network and try again, or get the file on another machine and either name it "
        f"with --checkpoint or put it at {folder / source.file_name} for backbone {name}",
        "unreachable",
    )


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return "the connection broke off"


def _unwritable(folder: Path, source: CheckpointSource, error: OSError) -> InputError:
    if error.errno == errno.ENOSPC:
        return InputError(
            f"no space left in {folder} for {source.file_name} ({source.size / 1e6:.0f} MB)",
            f"Free some, or set {CACHE_VARIABLE} to a folder on another disk",
            "no_space",
        )
    return InputError(
        f"cannot write to {folder} ({error.strerror or error})",
        f"Set {CACHE_VARIABLE} to a folder that you may write to",
        "cache_not_writable",
    )
