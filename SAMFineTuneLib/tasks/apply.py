"""An apply: segmenting volumes with a tuned model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from SAMFineTuneLib.device import choose_device, ready_to_predict
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.image_list import one_frame_each, read_image_list, unreadable_row
from SAMFineTuneLib.image_endings import names_a_picture
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import ApplyJob, names_a_dicom_segmentation
from SAMFineTuneLib.jobs.series_choice import series_of_volumes
from SAMFineTuneLib.models.model_file import ModelCard, load_model
from SAMFineTuneLib.tasks.apply_frames import apply_to_frames, chosen_frames
from SAMFineTuneLib.tasks.apply_outputs import Output, outputs_of, require_writable
from SAMFineTuneLib.tasks.drawn_slices import require_drawn
from SAMFineTuneLib.tasks.list_progress import rows_progress
from SAMFineTuneLib.tasks.volume_segmentation import Case, VolumeSegmentation, drawn_slices
from SAMFineTuneLib.volumes import (
    Labelmap,
    Volume,
    read_grid,
    read_time,
    write_labelmap,
    write_volume,
)
from SAMFineTuneLib.volumes.decoded_once import decoded_once
from SAMFineTuneLib.volumes.dicom.segmentation_writing import (
    check_dicom_output,
    rehearse,
    segment_numbers,
    write_segmentation,
)
from SAMFineTuneLib.volumes.dicom.sources import source_headers
from SAMFineTuneLib.volumes.frames import ONE_FRAME, TimeAxis
from SAMFineTuneLib.volumes.pictures.writing import require_labels_holdable
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.worker.events import EventWriter


def run_apply(
    job: ApplyJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Segments the job's volumes one after another and writes each result when it is done.

    Raises:
        InputError: anything in the job that cannot be used.
        Cancelled: the user asked to stop; finished volumes stay.
    """
    # The headers of a DICOM folder are read once for grid, axis of time and voxels.
    with decoded_once():
        return _run(job, events, control)


def _run(job: ApplyJob, events: EventWriter, control: Control) -> dict[str, Any]:
    device = choose_device(job.device)
    skipped: list[str] = []
    lines: dict[Path, int] = {}
    if job.image_list is not None:
        job, lines = _with_listed(job, job.image_list, events, control, skipped)
    _require_volumes(job)
    chosen = series_of_volumes(job.volumes, job.series)
    require_drawn(job.drawn, job.volumes, events.warning, chosen)
    cases = [
        Case(path, job.further_images(index), own)
        for index, (path, own) in enumerate(zip(job.volumes, chosen, strict=True))
    ]
    grids, axes = [], []
    for case in cases:
        axes.append(_time_axis(job, case))
        with _row_told(job, lines, case.path):
            grids.append(read_grid(case.path, case.series))
    outputs = outputs_of(job, grids, axes, events.warning)
    require_writable(job, outputs, grids, axes)
    segmenter, card = load_model(
        job.model, lambda card: find_weights(card.backbone, job.checkpoint)
    )
    _require_labels_holdable(outputs, card)
    ready_to_predict(segmenter, device)
    segmentation = VolumeSegmentation(job, segmenter, card, events.warning, events.log)
    results = []
    listed = job.image_list is not None
    report = rows_progress(events, "apply")
    for index, (case, output) in enumerate(zip(cases, outputs, strict=True)):
        if listed:
            report(index, len(outputs))
        else:
            events.log(f"volume {index + 1} of {len(job.volumes)}: {case.path.name}")
        if axes[index].frames > 1:
            count = len(chosen_frames(case, axes[index], job.frames))
            progress = partial(_progress, events, control, count)
            film = (case, grids[index], axes[index])
            results.append(apply_to_frames(segmentation, *film, output, progress))
            continue
        try:
            with _row_told(job, lines, case.path):
                volume = segmentation.read(case)
        except InputError as error:
            if not job.skip_unreadable:
                raise
            skipped.append(_skipped(error, events))
            continue
        results.append(_apply(segmentation, case, volume, output, events, control))
    if listed:
        report(len(outputs), len(outputs))
    result: dict[str, Any] = {"model": str(job.model), "volumes": results}
    return {**result, "skipped": skipped} if listed else result


def _with_listed(
    job: ApplyJob, path: Path, events: EventWriter, control: Control, skipped: list[str]
) -> tuple[ApplyJob, dict[Path, int]]:
    """The job with the images of its list as volumes, and the line of each.

    Those without a readable header are left out where unreadable ones are to be skipped.

    Raises:
        InputError: the list cannot be used, or no image can be read, or one cannot and is not to
            be skipped.
    """
    listed = read_image_list(path, job.images, columns=1)
    for remark in listed.remarks:
        events.warning(remark)
    lines = {each.image.path: each.line for each in listed.pairs}
    volumes = list(lines)
    if job.skip_unreadable:
        readable = []
        for volume in volumes:
            control.raise_if_cancelled()
            try:
                with _row_told(job, lines, volume):
                    read_grid(volume)
            except InputError as error:
                skipped.append(_skipped(error, events))
            else:
                readable.append(volume)
        if not readable:
            raise InputError(
                f"none of the images of {path.name} can be read: {skipped[0]}",
                "Check the files",
                code="listed_unreadable",
            )
        volumes = readable
    return job.model_copy(update={"volumes": volumes}), lines


@contextmanager
def _row_told(job: ApplyJob, lines: Mapping[Path, int], path: Path) -> Iterator[None]:
    """Where an image of a list is read, names the row of one that cannot be used."""
    if job.image_list is None:
        yield
        return
    try:
        with one_frame_each():
            yield
    except InputError as error:
        raise unreadable_row(job.image_list, lines[path], error) from error


def _skipped(error: InputError, events: EventWriter) -> str:
    events.warning(f"skipped: {error.message}")
    return error.message


def _require_volumes(job: ApplyJob) -> None:
    """Checks that the volumes exist, and that DICOM results can be written for them."""
    for path in [*job.volumes, *chain.from_iterable(job.channels)]:
        if not path.exists():
            raise InputError(
                f"there is no volume {path}", "check the name of the file", code="no_such_file"
            )
    if names_a_dicom_segmentation(job.output):
        for path in job.volumes:
            check_dicom_output(job.output, path)


def _require_labels_holdable(outputs: Sequence[Output], card: ModelCard) -> None:
    """Checks that the pictures to be written can hold the model's labels."""
    for output in outputs:
        if names_a_picture(output.segmentation):
            largest = max((label.value for label in card.labels), default=0)
            require_labels_holdable(output.segmentation, largest)


def _time_axis(job: ApplyJob, case: Case) -> TimeAxis:
    """The axis of time of a volume, checked to have the chosen frames.

    Raises:
        InputError: it does not have them.
    """
    # An image of a list has one frame, which is checked when it is read.
    if job.image_list is not None:
        return ONE_FRAME
    axis = read_time(case.path, case.series)
    chosen_frames(case, axis, job.frames)
    return axis


def _progress(
    events: EventWriter, control: Control, frames: int, before: int
) -> Callable[[int, int], None]:
    """What a frame calls with its finished slices, which tells those of all frames.

    Args:
        events: where progress is told.
        control: whether the job is cancelled.
        frames: how many frames are segmented.
        before: how many of them are finished.
    """
    started = time.monotonic()

    def progress(done: int, total: int) -> None:
        control.raise_if_cancelled()
        elapsed = time.monotonic() - started
        left = total * (frames - before) - done
        eta = elapsed * left / done if done else None
        events.progress(step=total * before + done, steps=total * frames, phase="apply", eta_s=eta)

    return progress


def _apply(
    segmentation: VolumeSegmentation,
    case: Case,
    volume: Volume,
    output: Output,
    events: EventWriter,
    control: Control,
) -> dict[str, Any]:
    job = segmentation.job
    known = segmentation.known(case, volume)
    write = _writer(job, case.path, volume, segmentation.card, events)
    started = time.monotonic()
    report = _progress(events, control, frames=1, before=0)

    def progress(done: int, total: int) -> None:
        if job.image_list is None:
            report(done, total)
        else:
            control.raise_if_cancelled()

    prediction = segmentation.predict(volume, known, output.uncertainty is not None, progress)
    write(output.segmentation, prediction.labelmap)
    entropies = prediction.uncertainty
    if output.uncertainty is not None and entropies is not None:
        write_volume(output.uncertainty, entropies, volume.geometry, compress=job.compress)
    return {
        "segmentation": str(output.segmentation),
        "uncertainty": str(output.uncertainty) if output.uncertainty else None,
        "axis": prediction.axis,
        "slice_uncertainty": prediction.slice_uncertainty,
        "drawn_slices": drawn_slices(known),
        "labels": prediction.labelmap.labels,
        "seconds": round(time.monotonic() - started, 2),
    }


def _writer(
    job: ApplyJob, path: Path, volume: Volume, card: ModelCard, events: EventWriter
) -> Callable[[Path, Labelmap], None]:
    """The function that writes a volume's segmentation; DICOM writing is tested before the work.

    Raises:
        InputError: a DICOM segmentation of this volume cannot be written.
    """
    if not names_a_dicom_segmentation(job.output):
        return partial(write_labelmap, compress=job.compress)
    labels = [label.value for label in card.labels]
    sources = source_headers(path, volume.geometry, volume.series)
    rehearse(job.output, volume.geometry, labels, sources)
    numbers = segment_numbers(labels)
    moved = [label for label in card.labels if numbers[label.value] != label.value]
    if moved:
        listed = ", ".join(
            f"label {label.value} {label.name}".rstrip() + f" is segment {numbers[label.value]}"
            for label in moved
        )
        events.warning(f"DICOM counts segments from 1: {listed}")

    def write(output: Path, labelmap: Labelmap) -> None:
        write_segmentation(output, labelmap, labels, sources)

    return write
