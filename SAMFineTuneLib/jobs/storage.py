"""What the program keeps on the disk and can fetch or compute again, and how it is cleared.

Tuned models are not part of it: they lie elsewhere, and only the user deletes them.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.interrupted import discard, interrupted_finetunes, job_paths
from SAMFineTuneLib.user_folders import cache_folder, embeddings_folder
from SAMFineTuneLib.weights.official import clear_checkpoints, list_checkpoints

# A worker takes some seconds to start, and until then its folder does not show that it is in use.
_STARTING_S = 60.0


@dataclass(frozen=True)
class StoredItem:
    """A file or a folder that can be cleared."""

    name: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class StorageUsed:
    """What can be cleared, item by item.

    Attributes:
        folder: the folder that holds all of it.
        checkpoints: downloaded weights, whole or in part, by backbone.
        interrupted: fine-tunes that could be resumed.
        other_jobs: folders of jobs that ended otherwise and were kept for their log, and of
            corrections whose program crashed.
        embeddings: embeddings of slices that were corrected, by image and model.
        running: how many jobs and corrections are at work. They are not in the other lists;
            `clear_storage` leaves them and, because they may need them, all checkpoints and
            embeddings.
    """

    folder: Path
    checkpoints: list[StoredItem]
    interrupted: list[StoredItem]
    other_jobs: list[StoredItem]
    embeddings: list[StoredItem]
    running: int

    @property
    def bytes(self) -> int:
        """The size of all items together."""
        jobs = (*self.interrupted, *self.other_jobs)
        return sum(item.bytes for item in (*self.checkpoints, *jobs, *self.embeddings))


def storage_used() -> StorageUsed:
    """What can be cleared now."""
    resumable = {each.folder for each in interrupted_finetunes()}
    paths = job_paths()
    idle = [path for path in paths if not _in_use(JobFolder(path))]
    jobs = [StoredItem(path.name, path, _bytes_in(path)) for path in idle]
    return StorageUsed(
        folder=cache_folder().absolute(),
        checkpoints=[
            StoredItem(each.name, each.path, each.bytes_present)
            for each in list_checkpoints()
            if each.bytes_present
        ],
        interrupted=[job for job in jobs if job.path in resumable],
        other_jobs=[job for job in jobs if job.path not in resumable],
        embeddings=[StoredItem(path.name, path, _bytes_in(path)) for path in _embedding_folders()],
        running=len(paths) - len(idle),
    )


def clear_storage() -> int:
    """Delete what `storage_used` lists; returns the bytes that this freed.

    Tuned models and running jobs or corrections are never deleted. While a job or correction runs,
    checkpoints and embeddings stay too.

    Raises:
        InputError: something cannot be deleted; everything else is deleted nevertheless.
    """
    before = storage_used()
    faults = []
    for job in (*before.interrupted, *before.other_jobs):
        try:
            discard(job.path)
        except InputError as error:
            faults.append(error)
    if not before.running:
        for clear in (clear_checkpoints, _clear_embeddings):
            try:
                clear()
            except OSError as error:
                faults.append(
                    InputError(
                        f"{error.filename} could not be deleted: {error.strerror or error}",
                        "close programs that use it, and try again",
                        code="not_writable",
                    )
                )
    if faults:
        raise faults[0]
    return before.bytes - storage_used().bytes


def _in_use(folder: JobFolder) -> bool:
    if folder.worker_at_work() is not None:
        return True
    try:
        age_s = time.time() - folder.path.stat().st_mtime
    except OSError:
        return False
    return not folder.events_file.exists() and 0 <= age_s < _STARTING_S


def _embedding_folders() -> list[Path]:
    try:
        return sorted(path for path in embeddings_folder().iterdir() if path.is_dir())
    except OSError:
        return []


def _clear_embeddings() -> None:
    for folder in _embedding_folders():
        shutil.rmtree(folder)
    # The folder itself is deleted if nothing else lies in it.
    with suppress(OSError):
        embeddings_folder().rmdir()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                total += _on_disk(path)
        except OSError:
            # The file was deleted meanwhile.
            continue
    return total


def _on_disk(path: Path) -> int:
    """The bytes that a file occupies: fewer than its length if it is sparse, as cached features."""
    status = path.stat()
    blocks: int | None = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(status.st_size, 512 * blocks)
