"""An apply: segmenting volumes with a tuned model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from SAMFineTuneLib.device import choose_device
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.channel_names import swapped
from SAMFineTuneLib.examples.image_list import read_image_list
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.image_endings import names_a_picture
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import ApplyJob, names_a_dicom_segmentation
from SAMFineTuneLib.jobs.series_choice import series_of_volumes
from SAMFineTuneLib.models.model_file import ModelCard, load_model
from SAMFineTuneLib.prediction.between_slices import keep_known
from SAMFineTuneLib.prediction.known_structure import KnownStructure
from SAMFineTuneLib.prediction.volume_prediction import (
    keep_largest_components,
    predict_volume,
    slice_axis,
)
from SAMFineTuneLib.slices.expected_images import as_expected
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.tasks.apply_outputs import Output, outputs_of, require_writable
from SAMFineTuneLib.tasks.drawn_slices import known_structures, require_drawn
from SAMFineTuneLib.tasks.list_progress import rows_progress
from SAMFineTuneLib.volumes import (
    Labelmap,
    Volume,
    read_grid,
    write_labelmap,
    write_volume,
)
from SAMFineTuneLib.volumes.case import read_case
from SAMFineTuneLib.volumes.dicom.segmentation_writing import (
    check_dicom_output,
    rehearse,
    segment_numbers,
    write_segmentation,
)
from SAMFineTuneLib.volumes.dicom.sources import source_headers
from SAMFineTuneLib.volumes.pictures.writing import require_labels_holdable
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.worker.events import EventWriter

_SLICES_AT_A_TIME = 4


def run_apply(
    job: ApplyJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Segments the job's volumes one after another and writes each result when it is done.

    Raises:
        InputError: anything in the job that cannot be used.
        Cancelled: the user asked to stop; finished volumes stay.
    """
    device = choose_device(job.device)
    skipped: list[str] = []
    if job.image_list is not None:
        job = _with_listed(job, job.image_list, events, control, skipped)
    _require_volumes(job)
    chosen = series_of_volumes(job.volumes, job.series)
    require_drawn(job.drawn, job.volumes, events.warning, chosen)
    grids = [read_grid(path, own) for path, own in zip(job.volumes, chosen, strict=True)]
    outputs = outputs_of(job, grids, events.warning)
    require_writable(job, outputs, grids)
    segmenter, card = load_model(
        job.model, lambda card: find_weights(card.backbone, job.checkpoint)
    )
    _require_labels_holdable(outputs, card)
    segmenter.to(device)
    results = []
    listed = job.image_list is not None
    report = rows_progress(events, "apply")
    for index, (path, series, output) in enumerate(zip(job.volumes, chosen, outputs, strict=True)):
        if listed:
            report(index, len(outputs))
        else:
            events.log(f"volume {index + 1} of {len(job.volumes)}: {path.name}")
        try:
            volume = _read(path, job.further_images(index), series, card, events, listed)
        except InputError as error:
            if not job.skip_unreadable:
                raise
            skipped.append(_skipped(error, events))
            continue
        known = _known(job, path, series, volume, card, events)
        write = _writer(job, path, volume, card, events)
        results.append(_apply(job, segmenter, card, volume, known, write, output, events, control))
    if listed:
        report(len(outputs), len(outputs))
    result: dict[str, Any] = {"model": str(job.model), "volumes": results}
    return {**result, "skipped": skipped} if listed else result


def _with_listed(
    job: ApplyJob, path: Path, events: EventWriter, control: Control, skipped: list[str]
) -> ApplyJob:
    """The job with the images of its list as volumes; those without a readable header are left out.

    Raises:
        InputError: the list cannot be used, or no image can be read, or one cannot and is not to
            be skipped.
    """
    listed = read_image_list(path, job.images, columns=1)
    for remark in listed.remarks:
        events.warning(remark)
    volumes = [each.image.path for each in listed.pairs]
    if job.skip_unreadable:
        readable = []
        for volume in volumes:
            control.raise_if_cancelled()
            try:
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
    return job.model_copy(update={"volumes": volumes})


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


def _read(
    path: Path,
    further: Sequence[Path],
    series: str | None,
    card: ModelCard,
    events: EventWriter,
    listed: bool,
) -> Volume:
    """Reads the images of a case, with warnings where the model may not fit them."""
    volume = read_case(path, further, series)
    volume = as_expected(volume, card.normalisation, path.name, tuple(card.channels))
    # That a picture has no place need not be told of each of thousands.
    for remark in () if listed and 1 in volume.geometry.shape else volume.remarks:
        events.warning(remark)
    files = [path, *further]
    if card.channels:
        order = ", ".join(
            f"{name} from {own.name}" for name, own in zip(card.channels, files, strict=True)
        )
        events.log(f"the model takes {order}")
    crossed = swapped(card.channels, files)
    if crossed is not None:
        names = " and ".join(files[each].name for each in crossed)
        events.warning(
            f"{names} seem to be given in the wrong order: the model was tuned on "
            f"{', '.join(card.channels)}, in this order"
        )
    if card.normalisation.kind == "calibrated" and _cannot_be_ct(volume):
        events.warning(
            f"{path.name} does not look like a CT, and the model was tuned on images with "
            "values as in CT (air at -1000, water at 0); do not expect it to find much"
        )
    return volume


def _known(
    job: ApplyJob,
    path: Path,
    series: str | None,
    volume: Volume,
    card: ModelCard,
    events: EventWriter,
) -> list[KnownStructure]:
    """The model's structures that are drawn in a volume."""
    names = {label.value: label.name for label in card.labels}
    terms = {label.value: label.terminology for label in card.labels}
    axis = slice_axis(card, volume)
    return known_structures(job.drawn, path, volume, names, axis, events.warning, terms, series)


def _cannot_be_ct(volume: Volume) -> bool:
    """Whether a volume has no negative values, which a CT has at least in fat."""
    if volume.modality is not None:
        return volume.modality != "CT"
    first = volume.array if volume.images == 1 else volume.array[..., 0]
    return float(first.min()) >= 0


def _apply(
    job: ApplyJob,
    segmenter: AutomaticSegmenter,
    card: ModelCard,
    volume: Volume,
    known: Sequence[KnownStructure],
    write: Callable[[Path, Labelmap], None],
    output: Output,
    events: EventWriter,
    control: Control,
) -> dict[str, Any]:
    started = time.monotonic()

    def progress(done: int, total: int) -> None:
        control.raise_if_cancelled()
        if job.image_list is not None:
            return
        elapsed = time.monotonic() - started
        eta = elapsed * (total - done) / done if done else None
        events.progress(step=done, steps=total, phase="apply", eta_s=eta)

    prediction = predict_volume(
        segmenter,
        card,
        volume,
        job.batch or _SLICES_AT_A_TIME,
        output.uncertainty is not None,
        progress,
        known,
    )
    labelmap = prediction.labelmap
    if job.largest_component:
        labelmap = keep_largest_components(labelmap)
        keep_known(SliceStack.of(labelmap, prediction.axis), known)
    write(output.segmentation, labelmap)
    entropies = prediction.uncertainty
    if output.uncertainty is not None and entropies is not None:
        write_volume(output.uncertainty, entropies, volume.geometry, compress=job.compress)
    return {
        "segmentation": str(output.segmentation),
        "uncertainty": str(output.uncertainty) if output.uncertainty else None,
        "axis": prediction.axis,
        "slice_uncertainty": prediction.slice_uncertainty,
        "drawn_slices": len({number for each in known for number in each.drawn}),
        "labels": labelmap.labels,
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
