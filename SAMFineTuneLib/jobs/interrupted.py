"""Fine-tunes that crashed or were cancelled before their end, and can be resumed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.folder import JobFolder, jobs_folder
from SAMFineTuneLib.jobs.schema import FinetuneJob, read_job
from SAMFineTuneLib.worker.events import Event, Progress, Result, parse_line

# Only the end of a job's events is read: it holds the latest progress and any result.
_TAIL_BYTES = 1 << 20


@dataclass(frozen=True)
class InterruptedFinetune:
    """A fine-tune that can be resumed by running the job of its folder again.

    Attributes:
        folder: the job's folder.
        output: the tuned model that it was to write.
        step: the optimiser step that it last reported; the checkpoint may be some steps earlier.
        steps: how many steps were planned; None if that was not reported.
        labels: names of the labels if the job gives them, otherwise their numbers; empty if the job
            takes all labels that occur.
        when: when it was last at work.
    """

    folder: Path
    output: Path
    step: int
    steps: int | None
    labels: list[str]
    when: datetime


def interrupted_finetunes() -> list[InterruptedFinetune]:
    """The interrupted fine-tunes in the user's folder of jobs, the latest first.

    Each has a checkpoint, no worker at work, and no result. A folder whose job cannot be read is
    left out, because it cannot be resumed.
    """
    found = [_interrupted(JobFolder(path)) for path in job_paths()]
    return sorted((each for each in found if each), key=lambda each: each.when, reverse=True)


def discard(folder: Path) -> None:
    """Delete the folder of a job that is not to be resumed.

    Raises:
        InputError: it is not a folder of the user's jobs, a worker is at work on it, or it cannot
            be deleted.
    """
    job = JobFolder(Path(folder).absolute())
    if job.path not in job_paths():
        raise InputError(
            f"{job.path} is not one of the jobs in {jobs_folder()}",
            "delete it by hand if nobody needs it",
            code="no_job",
        )
    holder = job.worker_at_work()
    if holder is not None:
        raise InputError(
            f"process {holder} is doing the job in {job.path}", "cancel it first", "job_running"
        )
    job.remove()
    if job.path.exists():
        raise InputError(
            f"{job.path} could not be deleted",
            "close programs that use its files, and try again",
            code="not_writable",
        )


def job_paths() -> list[Path]:
    """The folders in the user's folder of jobs; none if that folder does not exist."""
    try:
        return sorted(path for path in jobs_folder().iterdir() if path.is_dir())
    except OSError:
        return []


def _interrupted(folder: JobFolder) -> InterruptedFinetune | None:
    if not folder.has_checkpoint() or folder.worker_at_work() is not None:
        return None
    try:
        job = read_job(folder.path)
    except InputError:
        return None
    events = _last_events(folder.events_file)
    if not isinstance(job, FinetuneJob) or any(isinstance(each, Result) for each in events):
        return None
    reports = [each for each in events if isinstance(each, Progress) and each.steps is not None]
    return InterruptedFinetune(
        folder=folder.path,
        output=job.output,
        step=reports[-1].step if reports else 0,
        steps=reports[-1].steps if reports else None,
        labels=_labels(job),
        when=_last_written(folder),
    )


def _last_events(file: Path) -> list[Event]:
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    # The first line may be cut, and so may the last if the worker was killed: these are no events.
    return [parse_line(line) for line in text.splitlines()]


def _labels(job: FinetuneJob) -> list[str]:
    if job.label_names:
        return [job.label_names[value] for value in sorted(job.label_names)]
    listed = [example.labels for example in job.examples if example.labels != "all"]
    if job.labels != "all":
        listed.append(job.labels)
    return [str(value) for value in sorted({value for labels in listed for value in labels})]


def _last_written(folder: JobFolder) -> datetime:
    files = [folder.events_file, *folder.checkpoint_folder.iterdir()]
    latest = max(file.stat().st_mtime for file in files if file.exists())
    return datetime.fromtimestamp(latest, timezone.utc)
