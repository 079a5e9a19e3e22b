"""The folder of a job: the files through which client and worker communicate."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import possible_path
from SAMFineTuneLib.jobs.schema import JOB_FILE
from SAMFineTuneLib.user_folders import CACHE_VARIABLE, cache_folder
from SAMFineTuneLib.worker import lock_file
from SAMFineTuneLib.worker.events import EVENTS_FILE

# Code of the error for a job that another worker is doing already.
RUNNING = "job_running"
_LOOK_EVERY_S = 0.1
# Deleting a file takes some 0.1 ms a megabyte, for its pages in memory are given back.
_DELETED_AT_ONCE = 64 << 20


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
        """All events that the worker reported, one JSON object a line."""
        return self.path / EVENTS_FILE

    @property
    def log_file(self) -> Path:
        """Tracebacks of faults in the program."""
        return self.path / "worker.log"

    @property
    def cancel_file(self) -> Path:
        """If this file exists, the worker stops without a result."""
        return self.path / "cancel"

    @property
    def finish_file(self) -> Path:
        """If this file exists, the worker stops early and keeps the best model so far."""
        return self.path / "finish"

    @property
    def checkpoint_folder(self) -> Path:
        """Holds what a later run of the same job resumes from; made by the code that writes it."""
        return self.path / "checkpoint"

    @property
    def prepared_folder(self) -> Path:
        """Holds the slices of a list while they are learnt from; made by its writer."""
        return self.path / "prepared"

    @property
    def unlabelled_folder(self) -> Path:
        """Holds the unlabelled slices while they are learnt from; made by its writer."""
        return self.path / "unlabelled"

    @property
    def preview_folder(self) -> Path:
        """Holds images of the work so far; made by the code that writes them."""
        return self.path / "preview"

    @property
    def lock_file(self) -> Path:
        """Holds the process id of the worker that is at work."""
        return self.path / "worker.pid"

    def lock(self) -> None:
        """Lock the folder against other workers; a lock whose process has ended is taken over.

        Raises:
            InputError: another worker is doing the job, or the folder cannot be written.
        """
        lock_folder(
            self.lock_file,
            "doing the job",
            f"Wait for it, cancel it, or delete {self.lock_file.name} if it is another program",
            RUNNING,
        )

    def unlock(self) -> None:
        """Release the lock, so that other workers can do the job."""
        lock_file.release(self.lock_file)

    def worker_at_work(self) -> int | None:
        """Process id of the worker that is doing the job; None if none is."""
        return lock_file.holder_of(self.lock_file)

    def has_checkpoint(self) -> bool:
        """Whether a later run has something to continue from."""
        try:
            kept = list(self.checkpoint_folder.iterdir())
        except OSError:
            return False
        # Folders hold only what can be computed again, and .part files are unfinished.
        return any(each.is_file() and each.suffix != ".part" for each in kept)

    def clear_requests(self) -> None:
        """Delete the requests to cancel or to finish early, which hold for one run only."""
        self.cancel_file.unlink(missing_ok=True)
        self.finish_file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder with everything in it."""
        if self.worker_at_work() == os.getpid():
            # Windows cannot delete a file that is open.
            self.unlock()
        shutil.rmtree(self.path, ignore_errors=True)

    def remove_in_parts(self) -> Iterator[None]:
        """Delete the folder as `remove` does; yields between parts of large files."""
        for file in [each for each in self.path.rglob("*") if each.is_file()]:
            # A file that another program has opened stays, as in `remove`.
            with suppress(OSError):
                for size in range(file.stat().st_size - _DELETED_AT_ONCE, 0, -_DELETED_AT_ONCE):
                    os.truncate(file, size)
                    yield
                file.unlink()
            yield
        self.remove()


def lock_folder(file: Path, what: str, remedy: str, code: str, wait_s: float = 0.0) -> None:
    """Take a lock file, so that all other processes stay out of its folder.

    Args:
        file: the lock file, in the folder that is locked.
        what: what a process with the lock is doing there, for the message "process 12 is …".
        remedy: what the user can do if another process has the lock.
        code: code of that error.
        wait_s: how long to wait for the other process to end, in seconds.

    Raises:
        InputError: another process has the lock, or the folder cannot be written.
    """
    until = time.monotonic() + wait_s
    try:
        while (holder := lock_file.take(file)) is not None:
            if time.monotonic() >= until:
                who = f"process {holder}" if holder else "another program"
                raise InputError(f"{who} is {what} in {file.parent} already", remedy, code)
            time.sleep(_LOOK_EVERY_S)
    except OSError as error:
        raise InputError(
            f"{file.parent} cannot be worked in: {error.strerror or error}",
            "name a folder that is there and can be written",
            code="not_writable",
        ) from error


def jobs_folder() -> Path:
    """The folder in the user's cache for jobs for which the user chose no folder."""
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
                f"Set {CACHE_VARIABLE} to a folder that can be written",
                code="job_folder_not_writable",
                variable=CACHE_VARIABLE,
            ) from error
        return JobFolder(path)
    raise InputError(
        f"{jobs_folder()} already holds 999 jobs that were started in this second",
        "Try again a second later",
        code="job_folders_used_up",
    )


def require_writable(output: Path) -> None:
    """Check before the work that its output can be written afterwards; creates nothing.

    Raises:
        InputError: its folder (or the nearest that exists) cannot be written or is a file, or the
            output exists and may not be replaced.
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
    """Check before the work that no output replaces a file that the job reads, or another output.

    Args:
        written: the outputs.
        read: the files that the job reads, each with a text that says what it is.

    Raises:
        InputError: one of the outputs is one of these files, also under another name.
    """
    taken = {path.resolve(): what for path, what in read.items()}
    # Many disks do not distinguish upper and lower case.
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
    """Check before the work that a file can be written afterwards; creates nothing.

    Raises:
        InputError: as `require_writable`, or the output is a folder.
    """
    require_writable(output)
    if output.is_dir():
        raise InputError(f"{output} is a folder", "name a file", code="not_writable")
