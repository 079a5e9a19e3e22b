"""What the program keeps on the disk that can be had again, and how to be rid of it.

Tuned models are not among it: they lie elsewhere, and only the user deletes them.
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

# A worker takes some seconds to start; until then its folder does not show it.
from SAMFineTuneLib.user_folders import cache_folder, embeddings_folder
from SAMFineTuneLib.weights.official import clear_checkpoints, list_checkpoints

# A worker takes some seconds to start; until then its folder does not show it.
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
        folder: in which all of it lies.
        checkpoints: downloaded weights, whole or in part, by backbone.
        interrupted: fine-tunes that could go on.
        other_jobs: folders of jobs that ended otherwise and were kept for their log, and of
            corrections whose program broke down.
        embeddings: what networks made of slices that were corrected, by image and model.
        running: how many jobs and corrections are at work; they are not among the others, and
            `clear_storage` leaves them and, as they may need them, all checkpoints and embeddings.
    """

    folder: Path
    checkpoints: list[StoredItem]
    interrupted: list[StoredItem]
    other_jobs: list[StoredItem]
    embeddings: list[StoredItem]
    running: int

    @property
    def bytes(self) -> int:
        """All together."""
        jobs = (*self.interrupted, *self.other_jobs)
        return sum(item.bytes for item in (*self.checkpoints, *jobs, *self.embeddings))


def storage_used() -> StorageUsed:
    """What is there now."""
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
    """Delete all that `storage_used` lists, while no job runs; the bytes that this freed.

    Never a tuned model, and never a running job or correction. While one runs, checkpoints and
    embeddings stay.

    Raises:
        InputError: something cannot be deleted; the rest is.
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
    # The folder itself goes where nothing else lies in it.
    with suppress(OSError):
        embeddings_folder().rmdir()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                total += _on_disk(path)
        except OSError:
            # It has gone meanwhile.
            continue
    return total


def _on_disk(path: Path) -> int:
    """What a file takes: less than its length where it is sparse, as cached features are."""
    status = path.stat()
    blocks: int | None = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(status.st_size, 512 * blocks)
