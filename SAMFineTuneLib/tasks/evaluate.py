"""Measures a segmentation against a reference, from the job to the figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder, refuse_overwriting, require_writable_file
from SAMFineTuneLib.jobs.schema import EvaluateJob
from SAMFineTuneLib.worker.events import EventWriter
from SAMFineTuneLib.worker.json_text import write_json

if TYPE_CHECKING:
    from SAMFineTuneLib.volumes import Labelmap


def run_evaluate(
    job: EvaluateJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Measure a segmentation against a reference; writes the figures to `job.output` if given.

    Raises:
        InputError: a file that is no segmentation, segmentations that do not overlap, a label or
            a slice that does not exist, an output that cannot be written or would replace one of
            the two.
    """
    if job.image_list is not None:
        from SAMFineTuneLib.tasks.evaluate_list import run_evaluate_list

        return run_evaluate_list(job, job.image_list, events, control)
    assert job.prediction is not None and job.reference is not None
    return _evaluate_pair(job, job.prediction, job.reference, events, control)


def _evaluate_pair(
    job: EvaluateJob, predicted: Path, true: Path, events: EventWriter, control: Control
) -> dict[str, Any]:
    from SAMFineTuneLib.volumes.image_as_labels import same_labels_warning

    if job.output is not None:
        refuse_overwriting([job.output], {predicted: "the segmentation", true: "the reference"})
        require_writable_file(job.output)
    labels = None if job.labels == "all" else job.labels
    prediction, reference = _read_pair(job, predicted, true, labels)
    same = same_labels_warning(prediction, reference, predicted, true)
    for remark in (*prediction.remarks, *reference.remarks, *same):
        events.warning(remark)
    control.raise_if_cancelled()
    # After reading: it takes seconds to load, and a wrong file is to be told at once.
    from SAMFineTuneLib.evaluation.label_numbers import in_numbers_of_reference
    from SAMFineTuneLib.evaluation.report import evaluate

    prediction, remarks = in_numbers_of_reference(
        prediction, reference, labels, job.label_names, predicted.name, true.name
    )
    for remark in remarks:
        events.warning(remark)
    reference = replace(reference, names={**reference.names, **job.label_names})
    report = evaluate(prediction, reference, labels, job.slices, job.axis, job.tolerance_mm)
    result = report.to_json()
    if job.output is not None:
        write_json(job.output, result)
    return result


def _read_pair(
    job: EvaluateJob, predicted: Path, true: Path, labels: list[int] | None
) -> tuple[Labelmap, Labelmap]:
    """Segmentation and reference; contours, which have no grid, on that of the other."""
    from SAMFineTuneLib.volumes import read_labelmap
    from SAMFineTuneLib.volumes.dicom.labels import needs_grid

    def read(
        path: Path, empty_ok: bool, wanted: list[int] | None, over: Labelmap | None = None
    ) -> Labelmap:
        grid = None if over is None else over.geometry
        merge = job.merge if path == job.reference else None
        return read_labelmap(
            path, empty_ok=empty_ok, over=grid, wanted=wanted, on_top=job.on_top, merge=merge
        )

    # Without a label in the reference, nobody could know what to measure. The labels are those of
    # the reference: in the prediction, structures of the same names may have other numbers.
    reference_may_be_empty = labels is not None
    if needs_grid(predicted):
        reference = read(true, reference_may_be_empty, labels)
        return read(predicted, True, None, reference), reference
    prediction = read(predicted, True, None)
    return prediction, read(true, reference_may_be_empty, labels, prediction)
