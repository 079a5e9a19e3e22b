"""The folder of a job: the files in which client and worker meet."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from SAMFineTuneLib.backbones.checkpoints import cache_folder
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import possible_path
from SAMFineTuneLib.jobs.events import EVENTS_FILE
from SAMFineTuneLib.jobs.schema import JOB_FILE

# Clocks of processes and of files may differ by their resolution, 2 s on some disks.
_CLOCK_TOLERANCE_S = 3.0


@dataclass(frozen=True)
class JobFolder:
    """Names of the files of one job."""

    path: Path

    @property
    def job_file(self) -> Path:
        """The job, as schema.py describes it."""
        return self.path / JOB_FILE

    @property
    def events_file(self) -> Path:
        """Everything that the worker told, one JSON object a line."""
        return self.path / EVENTS_FILE

    @property
    def log_file(self) -> Path:
        """Tracebacks of faults in the program."""
        return self.path / "worker.log"

    @property
    def cancel_file(self) -> Path:
        """Exists: stop, without a result."""
        return self.path / "cancel"

    @property
    def finish_file(self) -> Path:
        """Exists: stop early and keep the best so far."""
        return self.path / "finish"

    @property
    def checkpoint_folder(self) -> Path:
        """What a later run of the same job continues from; made by who writes into it."""
        return self.path / "checkpoint"

    @property
    def preview_folder(self) -> Path:
        """Images of the work so far; made by who writes into it."""
        return self.path / "preview"

    @property
    def lock_file(self) -> Path:
        """Holds the process id of the worker that is at work."""
        return self.path / "worker.pid"

    def lock(self) -> None:
        """Keep a second worker from the same folder; a lock whose process has gone is taken over.

        Raises:
            InputError: another worker is doing the job.
        """
        holder = self.worker_at_work()
        if holder is not None and holder != os.getpid():
            raise InputError(
                f"process {holder} is doing the job in {self.path} already",
                f"Wait for it, cancel it, or delete {self.lock_file.name} if it is another program",
                code="job_running",
            )
        self.lock_file.write_text(str(os.getpid()), encoding="utf-8")

    def unlock(self) -> None:
        """Let other workers at the job again."""
        self.lock_file.unlink(missing_ok=True)

    def worker_at_work(self) -> int | None:
        """Process id of the worker that is doing the job; None where it has gone."""
        try:
            holder = int(self.lock_file.read_text(encoding="utf-8"))
            locked_at = self.lock_file.stat().st_mtime
        except (OSError, ValueError):
            return None
        return holder if _was_running(holder, locked_at) else None

    def has_checkpoint(self) -> bool:
        """Whether a later run has something to continue from."""
        try:
            kept = list(self.checkpoint_folder.iterdir())
        except OSError:
            return False
        # Folders hold what can be computed again, and parts of files were being written.
        return any(each.is_file() and each.suffix != ".part" for each in kept)

    def clear_requests(self) -> None:
        """Forget requests to cancel or to finish early, which hold for one run only."""
        self.cancel_file.unlink(missing_ok=True)
        self.finish_file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def _was_running(pid: int, then: float) -> bool:
    """Whether the process that had this id at a time still runs; ids are given again."""
    try:
        process = psutil.Process(pid)
        started_before = process.create_time() <= then + _CLOCK_TOLERANCE_S
        return started_before and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def jobs_folder() -> Path:
    """The user's folder for jobs whose folder nobody chose."""
    return cache_folder().absolute() / "jobs"


def new_job_folder(kind: str) -> JobFolder:
    """Make an empty folder for a job in the user's cache.

    Raises:
        InputError: the cache cannot be written.
    """
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{kind}-{os.getpid()}"
    for number in range(1, 1000):
        path = jobs_folder() / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(
                f"cannot make the job folder {path}: {error.strerror or error}",
                "Name a folder with --job, or set SAMFINETUNE_CACHE to one that can be written",
                code="not_writable",
            ) from error
        return JobFolder(path)
    raise InputError(f"{jobs_folder()} is full of jobs of this second", "Name a folder with --job")


def require_writable(output: Path) -> None:
    """Check before the work that an output can be written after it; makes nothing.

    Raises:
        InputError: its folder (or the nearest that exists) cannot be written, or is a file, or
            the output exists and is not to be replaced.
    """
    possible_path(output)
    candidates = (output.absolute(), *output.absolute().parents)
    start = 0 if output.is_dir() else 1
    nearest = next(path for path in candidates[start:] if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
        if output.is_file():
            with output.open("r+b"):
                pass
    except OSError as error:
        raise InputError(
            f"cannot write {output}: {error.strerror or error}",
            "Name an output in a folder that can be written",
            code="not_writable",
        ) from error


def refuse_overwriting(written: Sequence[Path], read: Mapping[Path, str]) -> None:
    """Check before the work that no output replaces what the job reads, or another output.

    Args:
        written: the outputs.
        read: the files that the job reads, and what each is, in words.

    Raises:
        InputError: one of the outputs is one of these files, under whatever name.
    """
    taken = {path.resolve(): what for path, what in read.items()}
    # Many disks make no difference between upper and lower case.
    outputs: set[str] = set()
    for path in written:
        place = path.resolve()
        if place in taken or str(place).casefold() in outputs:
            raise InputError(
                f"{path} would be written over {taken.get(place, 'another output')}",
                "name another output",
                code="overwrites",
            )
        outputs.add(str(place).casefold())


def require_writable_file(output: Path) -> None:
    """Check before the work that a file can be written after it; makes nothing.

    Raises:
        InputError: as `require_writable`, or the output is a folder.
    """
    require_writable(output)
    if output.is_dir():
        raise InputError(f"{output} is a folder", "name a file", code="not_writable")
