"""The functions that do the work of a job, one for each kind of job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder, refuse_overwriting, require_writable_file
from SAMFineTuneLib.jobs.schema import ApplyJob, CheckpointJob, EvaluateJob, FinetuneJob
from SAMFineTuneLib.worker.events import EventWriter
from SAMFineTuneLib.worker.json_text import write_json

if TYPE_CHECKING:
    from SAMFineTuneLib.volumes import Labelmap

Runner = Callable[[Any, JobFolder, EventWriter, Control], dict[str, Any]]


def run_evaluate(
    job: EvaluateJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Compares a segmentation with a reference; writes the figures to `job.output` if given.

    Raises:
        InputError: a file that is no segmentation, segmentations that do not overlap, a label or
            a slice that does not exist, an output that cannot be written or would replace one of
            the two.
    """
    from SAMFineTuneLib.volumes.image_as_labels import same_labels_warning

    if job.output is not None:
        refuse_overwriting(
            [job.output], {job.prediction: "the segmentation", job.reference: "the reference"}
        )
        require_writable_file(job.output)
    labels = None if job.labels == "all" else job.labels
    prediction, reference = _read_pair(job, labels)
    same = same_labels_warning(prediction, reference, job.prediction, job.reference)
    for remark in (*prediction.remarks, *reference.remarks, *same):
        events.warning(remark)
    control.raise_if_cancelled()
    # Imported after reading, because this takes seconds, and a wrong file is reported at once.
    from SAMFineTuneLib.evaluation.label_numbers import in_numbers_of_reference
    from SAMFineTuneLib.evaluation.report import evaluate

    prediction, remarks = in_numbers_of_reference(
        prediction, reference, labels, job.label_names, job.prediction.name, job.reference.name
    )
    for remark in remarks:
        events.warning(remark)
    reference = replace(reference, names={**reference.names, **job.label_names})
    report = evaluate(prediction, reference, labels, job.slices, job.axis, job.tolerance_mm)
    result = report.to_json()
    if job.output is not None:
        write_json(job.output, result)
    return result


def _read_pair(job: EvaluateJob, labels: list[int] | None) -> tuple[Labelmap, Labelmap]:
    """Segmentation and reference; contours, which have no grid, are drawn on the other's grid."""
    from SAMFineTuneLib.volumes import read_labelmap
    from SAMFineTuneLib.volumes.dicom_labels import needs_grid

    def read(
        path: Path, empty_ok: bool, wanted: list[int] | None, over: Labelmap | None = None
    ) -> Labelmap:
        grid = None if over is None else over.geometry
        return read_labelmap(path, empty_ok=empty_ok, over=grid, wanted=wanted, on_top=job.on_top)

    # Without labels, an empty reference leaves open what to measure. The labels are numbers of the
    # reference; in the prediction, structures of the same names may have other numbers.
    reference_may_be_empty = labels is not None
    if needs_grid(job.prediction):
        reference = read(job.reference, reference_may_be_empty, labels)
        return read(job.prediction, True, None, reference), reference
    prediction = read(job.prediction, True, None)
    return prediction, read(job.reference, reference_may_be_empty, labels, prediction)


def run_finetune(
    job: FinetuneJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Fine-tunes a network; tensor libraries are imported only now."""
    from SAMFineTuneLib.tasks import finetune as finetune_runner

    return finetune_runner.run_finetune(job, folder, events, control)


def run_apply(
    job: ApplyJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Segments volumes; tensor libraries are imported only now."""
    from SAMFineTuneLib.tasks import apply as apply_runner

    return apply_runner.run_apply(job, folder, events, control)


def run_checkpoint(
    job: CheckpointJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Fetches official weights."""
    from SAMFineTuneLib.tasks import checkpoint as checkpoint_runner

    return checkpoint_runner.run_checkpoint(job, folder, events, control)


RUNNERS: dict[str, Runner] = {
    "finetune": run_finetune,
    "apply": run_apply,
    "evaluate": run_evaluate,
    "checkpoint": run_checkpoint,
}
