"""The folder of a job: the files in which client and worker meet."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import possible_path
from SAMFineTuneLib.jobs.schema import JOB_FILE
from SAMFineTuneLib.user_folders import CACHE_VARIABLE, cache_folder
from SAMFineTuneLib.worker import lock_file
from SAMFineTuneLib.worker.events import EVENTS_FILE

# Code of the refusal of a job that another worker is doing.
RUNNING = "job_running"
_LOOK_EVERY_S = 0.1


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
            InputError: another worker is doing the job, or the folder cannot be written.
        """
        lock_folder(
            self.lock_file,
            "doing the job",
            f"Wait for it, cancel it, or delete {self.lock_file.name} if it is another program",
            RUNNING,
        )

    def unlock(self) -> None:
        """Let other workers at the job again."""
        lock_file.release(self.lock_file)

    def worker_at_work(self) -> int | None:
        """Process id of the worker that is doing the job; None where it has gone."""
        return lock_file.holder_of(self.lock_file)

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
        if self.worker_at_work() == os.getpid():
            # Windows deletes no file that is open.
            self.unlock()
        shutil.rmtree(self.path, ignore_errors=True)


def lock_folder(file: Path, what: str, remedy: str, code: str, wait_s: float = 0.0) -> None:
    """Keep all other processes out of what a lock file stands for.

    Args:
        file: the lock file, in the folder that is locked.
        what: the other process would be doing there, in words.
        remedy: what to do about it.
        code: of the refusal.
        wait_s: how long to wait for the other process to end.

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
                f"Set {CACHE_VARIABLE} to a folder that can be written",
                code="job_folder_not_writable",
                variable=CACHE_VARIABLE,
            ) from error
        return JobFolder(path)
    raise InputError(
        f"{jobs_folder()} is full of jobs of this second",
        "Try again a second later",
        code="job_folders_used_up",
    )


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
