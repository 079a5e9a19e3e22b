"""Measures a segmentation against a reference, from the job to the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder, refuse_overwriting, require_writable_file
from SAMFineTuneLib.jobs.schema import EvaluateJob
from SAMFineTuneLib.worker.events import EventWriter
from SAMFineTuneLib.worker.json_text import write_json

if TYPE_CHECKING:
    from SAMFineTuneLib.evaluation.report import Report
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


class _FramePair(NamedTuple):
    """The frames of a segmentation and its reference; None for a file without an axis of time."""

    prediction: int | None
    reference: int | None


def _evaluate_pair(
    job: EvaluateJob, predicted: Path, true: Path, events: EventWriter, control: Control
) -> dict[str, Any]:
    from SAMFineTuneLib.volumes.decoded_once import decoded_once

    if job.output is not None:
        refuse_overwriting([job.output], {predicted: "the segmentation", true: "the reference"})
        require_writable_file(job.output)
    pairs = _frame_pairs(job, predicted, true)
    with decoded_once():
        if pairs is None:
            whole = _FramePair(None, max(job.frames) if job.frames else None)
            result = _report(job, predicted, true, whole, events, control).to_json()
        else:
            result = _over_frames(job, predicted, true, pairs, events, control)
    if job.output is not None:
        write_json(job.output, result)
    return result


def _frame_pairs(job: EvaluateJob, predicted: Path, true: Path) -> list[_FramePair] | None:
    """The frames to compare; None for files without an axis of time.

    Raises:
        InputError: the files do not have equally many frames, or there is no such frame.
    """
    from SAMFineTuneLib.volumes import read_time_of_labels
    from SAMFineTuneLib.volumes.frames import require_frame

    time, of_reference = read_time_of_labels(predicted), read_time_of_labels(true)
    if time.frames == of_reference.frames == 1:
        return None
    chosen = job.frames or range(time.frames)
    numbers = [require_frame(predicted, time, each) for each in sorted(chosen)]
    if of_reference.frames == time.frames:
        return [_FramePair(each, each) for each in numbers]
    if of_reference.frames == 1 and job.frames and len(numbers) == 1:
        return [_FramePair(numbers[0], None)]
    remedy = "Give a reference of as many frames"
    if of_reference.frames == 1:
        remedy += ", or choose the one frame that the reference shows"
    raise InputError(
        f"'{predicted}' has {counted(time.frames, 'frame')}, and its reference '{true}' "
        f"{counted(of_reference.frames, 'frame')}",
        remedy,
        code="other_frames",
    )


def _over_frames(
    job: EvaluateJob,
    predicted: Path,
    true: Path,
    pairs: Sequence[_FramePair],
    events: EventWriter,
    control: Control,
) -> dict[str, Any]:
    """The scores of all frames; without a choice, of those on which the reference has a label."""
    from SAMFineTuneLib.evaluation.frames_report import frames_to_json
    from SAMFineTuneLib.volumes import read_labelmap

    without_label = []
    labels = None if job.labels == "all" else job.labels
    if job.frames is None:
        for pair in pairs:
            shown = read_labelmap(
                true,
                frame=pair.reference,
                empty_ok=True,
                wanted=labels,
                on_top=job.on_top,
                merge=job.merge,
            ).labels
            if not (shown if labels is None else {*shown} & {*labels}):
                without_label.append(pair)
    measured = [pair for pair in pairs if pair not in without_label]
    if not measured:
        raise InputError(
            f"the reference '{true}' shows no label on any frame",
            "Give the labelled reference, or choose the frames to measure",
            code="empty_segmentation",
        )
    numbers = [pair.prediction or 0 for pair in without_label]
    if numbers:
        events.warning(
            f"{true.name} shows no label on frame {', '.join(map(str, numbers))}; left out"
        )
    reports = {
        pair.prediction or 0: _report(job, predicted, true, pair, events, control)
        for pair in measured
    }
    return frames_to_json(reports, numbers)


def _report(
    job: EvaluateJob,
    predicted: Path,
    true: Path,
    pair: _FramePair,
    events: EventWriter,
    control: Control,
) -> Report:
    """What is measured on a segmentation and its reference, or on one frame of both."""
    from SAMFineTuneLib.volumes.image_as_labels import same_labels_warning

    labels = None if job.labels == "all" else job.labels
    prediction, reference = _read_pair(job, predicted, true, labels, pair)
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
    try:
        return evaluate(prediction, reference, labels, job.slices, job.axis, job.tolerance_mm)
    except InputError as error:
        if error.code != "other_size":
            raise
        # It speaks of a mask and its image, and names no file.
        raise InputError(
            f"{predicted.name} has {_size(prediction)} voxels, and {true.name} {_size(reference)}",
            error.remedy,
            code="other_size",
        ) from error


def _size(labelmap: Labelmap) -> str:
    return " x ".join(str(each) for each in labelmap.geometry.size)


def _read_pair(
    job: EvaluateJob, predicted: Path, true: Path, labels: list[int] | None, pair: _FramePair
) -> tuple[Labelmap, Labelmap]:
    """Segmentation and reference; contours, which have no grid, on that of the other."""
    from SAMFineTuneLib.volumes import read_labelmap
    from SAMFineTuneLib.volumes.dicom.labels import needs_grid

    def read(
        path: Path,
        frame: int | None,
        empty_ok: bool,
        wanted: list[int] | None,
        over: Labelmap | None = None,
    ) -> Labelmap:
        grid = None if over is None else over.geometry
        merge = job.merge if path == job.reference else None
        return read_labelmap(
            path,
            frame=frame,
            empty_ok=empty_ok,
            over=grid,
            wanted=wanted,
            on_top=job.on_top,
            merge=merge,
        )

    # Without a label in the reference, nobody could know what to measure. The labels are those of
    # the reference: in the prediction, structures of the same names may have other numbers.
    may_be_empty = labels is not None or job.frames is not None
    if needs_grid(predicted):
        reference = read(true, pair.reference, may_be_empty, labels)
        return read(predicted, pair.prediction, True, None, reference), reference
    prediction = read(predicted, pair.prediction, True, None)
    return prediction, read(true, pair.reference, may_be_empty, labels, prediction)
