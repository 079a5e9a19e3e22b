"""From a job to the code that does it: one function for each kind of job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import ApplyJob, CheckpointJob, EvaluateJob, FinetuneJob
from SAMFineTuneLib.tasks.monai_loading import load_monai
from SAMFineTuneLib.worker.events import EventWriter
from SAMFineTuneLib.worker.package_loading import loading_packages

Runner = Callable[[Any, JobFolder, EventWriter, Control], dict[str, Any]]


def run_evaluate(
    job: EvaluateJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Measure a segmentation; see `tasks.evaluate`. Image libraries load only now."""
    with loading_packages():
        from SAMFineTuneLib.tasks import evaluate

    return evaluate.run_evaluate(job, folder, events, control)


def run_finetune(
    job: FinetuneJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Fine-tune a network; see `tasks.finetune`. Tensor libraries load only now."""
    with loading_packages():
        load_monai()
        from SAMFineTuneLib.tasks import finetune

    return finetune.run_finetune(job, folder, events, control)


def run_apply(
    job: ApplyJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Segment volumes; see `tasks.apply`. Tensor libraries load only now."""
    with loading_packages():
        from SAMFineTuneLib.tasks import apply

    return apply.run_apply(job, folder, events, control)


def run_checkpoint(
    job: CheckpointJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Fetch weights; see `tasks.checkpoint`."""
    from SAMFineTuneLib.tasks import checkpoint

    return checkpoint.run_checkpoint(job, folder, events, control)


RUNNERS: dict[str, Runner] = {
    "finetune": run_finetune,
    "apply": run_apply,
    "evaluate": run_evaluate,
    "checkpoint": run_checkpoint,
}
