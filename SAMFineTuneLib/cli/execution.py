"""Runs a command as a job: writes it, runs it in a worker, shows its progress and its result."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from SAMFineTuneLib.cli.arguments import print_message, print_result
from SAMFineTuneLib.cli.progress_display import ProgressDisplay
from SAMFineTuneLib.cli.remedies import with_remedy_to_type
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.folder import JobFolder, new_job_folder
from SAMFineTuneLib.jobs.process import WorkerProcess
from SAMFineTuneLib.jobs.schema import Job, read_job, with_absolute_paths, write_job
from SAMFineTuneLib.jobs.worker_output import Outcome
from SAMFineTuneLib.worker.failure import EXIT_BAD_INPUT, EXIT_DONE


def execute(job: Job, chosen_folder: Path | None) -> int:
    """Do a job in a worker and print its result.

    A folder that the user chose is kept. A folder in the cache is deleted when the job is done, but
    kept if the job can be resumed or its log is needed.

    Args:
        job: what to do.
        chosen_folder: the job's folder; None makes one in the user's cache.

    Returns:
        The exit code.
    """
    folder = new_job_folder(job.kind) if chosen_folder is None else _prepare(chosen_folder, job)
    try:
        write_job(folder.path, job)
    except OSError as error:
        raise InputError(
            f"cannot write {folder.job_file}: {error.strerror or error}",
            "Name a folder that can be written with --job",
            code="not_writable",
        ) from error
    outcome = run_worker(folder, keeps_previews=chosen_folder is not None)
    if outcome.result is not None:
        print_result(outcome.result)
    elif outcome.error is not None:
        line = with_remedy_to_type(outcome.error).line()
        print_message(line if outcome.error.code == "cancelled" else f"error: {line}")
    if chosen_folder is None and not _worth_keeping(folder, outcome):
        folder.remove()
    elif outcome.exit_code != EXIT_DONE:
        again = _again(folder)
        print_message(f"The job is kept; run it again, from where it stopped, with: {again}")
    return outcome.exit_code


def run_worker(folder: JobFolder, keeps_previews: bool = True) -> Outcome:
    """Run the job of a folder to its end; Ctrl-C cancels it, a second Ctrl-C kills the worker."""
    display = ProgressDisplay(keeps_previews)
    worker = WorkerProcess(folder.path, display.show)
    with _termination_as_interrupt():
        worker.start()
        try:
            return _wait(worker)
        finally:
            if worker.running():
                worker.end_now()
            display.close()


def _wait(worker: WorkerProcess) -> Outcome:
    outcome = None
    while outcome is None:
        try:
            outcome = worker.wait(timeout_s=1.0)
        except KeyboardInterrupt:
            if worker.cancel_asked:
                worker.end_now()
            else:
                print_message("cancelling …")
                worker.cancel()
    return outcome


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Within the context SIGTERM, which batch systems send, cancels the job as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare(path: Path, job: Job) -> JobFolder:
    folder = JobFolder(path.absolute())
    if folder.job_file.exists():
        if read_job(folder.path) != with_absolute_paths(job):
            raise InputError(
                f"{folder.path} holds another job",
                f"Name another folder with --job, or continue that job with: {_again(folder)}",
                code="other_job",
            )
        return folder
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the job folder {path}: {error.strerror or error}",
            "Name a folder that can be written with --job",
            code="not_writable",
        ) from error
    return folder


def _worth_keeping(folder: JobFolder, outcome: Outcome) -> bool:
    if outcome.exit_code == EXIT_DONE:
        return False
    return outcome.exit_code != EXIT_BAD_INPUT or folder.has_checkpoint()


def _again(folder: JobFolder) -> str:
    command = [sys.executable, "-m", "SAMFineTuneLib", "run", str(folder.path)]
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
