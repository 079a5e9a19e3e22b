"""An apply: segmenting volumes with a tuned model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from SAMFineTuneLib.device import choose_device
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.image_endings import volume_stem
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder, refuse_overwriting, require_writable_file
from SAMFineTuneLib.jobs.schema import ApplyJob, names_a_dicom_segmentation, names_an_image
from SAMFineTuneLib.jobs.series_choice import series_of_volumes
from SAMFineTuneLib.models.model_file import ModelCard, load_model
from SAMFineTuneLib.prediction.between_slices import keep_known
from SAMFineTuneLib.prediction.known_structure import KnownStructure
from SAMFineTuneLib.prediction.volume_prediction import (
    keep_largest_components,
    predict_volume,
    slice_axis,
)
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.tasks.drawn_slices import known_structures, require_drawn
from SAMFineTuneLib.volumes import (
    Geometry,
    Labelmap,
    Volume,
    can_hold,
    files_of,
    read_grid,
    read_volume,
    require_holdable,
    write_labelmap,
    write_volume,
)
from SAMFineTuneLib.volumes.dicom.segmentation_writing import (
    check_dicom_output,
    rehearse,
    segment_numbers,
    write_segmentation,
)
from SAMFineTuneLib.volumes.dicom.sources import source_headers
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.worker.events import EventWriter


class _Endings(NamedTuple):
    """Endings of the names of files in a folder, which follow the volume's name."""

    segmentation: str
    uncertainty: str


_COMPRESSED_ENDINGS = _Endings("_segmentation.nii.gz", "_uncertainty.nii.gz")
# Uncompressed NIfTI files cannot hold names and colours of labels.
_RAW_ENDINGS = _Endings("_segmentation.seg.nrrd", "_uncertainty.nrrd")

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
    for path in job.volumes:
        if not path.exists():
            raise InputError(
                f"there is no volume {path}", "check the name of the file", code="no_such_file"
            )
        if names_a_dicom_segmentation(job.output):
            check_dicom_output(job.output, path)
    chosen = series_of_volumes(job.volumes, job.series)
    require_drawn(job.drawn, job.volumes, events.warning, chosen)
    grids = [read_grid(path, own) for path, own in zip(job.volumes, chosen, strict=True)]
    endings = [
        _endings(job, path, grid, events) for path, grid in zip(job.volumes, grids, strict=True)
    ]
    outputs = _outputs(job.volumes, job.output, [each.segmentation for each in endings])
    uncertainties = (
        [None] * len(outputs)
        if job.uncertainty is None
        else _outputs(job.volumes, job.uncertainty, [each.uncertainty for each in endings])
    )
    for grid, output, uncertainty in zip(grids, outputs, uncertainties, strict=True):
        # A DICOM segmentation stores the position of every frame.
        if not names_a_dicom_segmentation(output):
            require_holdable(output, grid)
        if uncertainty is not None:
            require_holdable(uncertainty, grid)
    written = [path for path in (*outputs, *uncertainties) if path is not None]
    read = dict.fromkeys(job.volumes, "a volume")
    read |= {each.segmentation: "what is drawn" for each in job.drawn}
    refuse_overwriting(written, {job.model: "the model", **read})
    for path in written:
        for file in files_of(path):
            require_writable_file(file)

    segmenter, card = load_model(
        job.model, lambda card: find_weights(card.backbone, job.checkpoint)
    )
    segmenter.to(device)
    results = []
    for index, path in enumerate(job.volumes):
        events.log(f"volume {index + 1} of {len(job.volumes)}: {path.name}")
        volume = read_volume(path, chosen[index])
        for remark in volume.remarks:
            events.warning(remark)
        if card.normalisation.kind == "calibrated" and _cannot_be_ct(volume):
            events.warning(
                f"{path.name} does not look like a CT, and the model was tuned on images with "
                "values as in CT (air at -1000, water at 0); do not expect it to find much"
            )
        names = {label.value: label.name for label in card.labels}
        axis = slice_axis(card, volume)
        terms = {label.value: label.terminology for label in card.labels}
        known = known_structures(
            job.drawn, path, volume, names, axis, events.warning, terms, chosen[index]
        )
        results.append(
            _apply(
                job,
                segmenter,
                card,
                volume,
                known,
                _writer(job, path, volume, card, events),
                outputs[index],
                uncertainties[index],
                events,
                control,
            )
        )
    return {"model": str(job.model), "volumes": results}


def _cannot_be_ct(volume: Volume) -> bool:
    """Whether a volume has no negative values, which a CT has at least in fat."""
    if volume.modality is not None:
        return volume.modality != "CT"
    return float(volume.array.min()) >= 0


def _apply(
    job: ApplyJob,
    segmenter: AutomaticSegmenter,
    card: ModelCard,
    volume: Volume,
    known: Sequence[KnownStructure],
    write: Callable[[Path, Labelmap], None],
    output: Path,
    uncertainty: Path | None,
    events: EventWriter,
    control: Control,
) -> dict[str, Any]:
    started = time.monotonic()

    def progress(done: int, total: int) -> None:
        control.raise_if_cancelled()
        elapsed = time.monotonic() - started
        eta = elapsed * (total - done) / done if done else None
        events.progress(step=done, steps=total, phase="apply", eta_s=eta)

    prediction = predict_volume(
        segmenter,
        card,
        volume,
        job.batch or _SLICES_AT_A_TIME,
        uncertainty is not None,
        progress,
        known,
    )
    labelmap = prediction.labelmap
    if job.largest_component:
        labelmap = keep_largest_components(labelmap)
        keep_known(SliceStack.of(labelmap, prediction.axis), known)
    write(output, labelmap)
    if uncertainty is not None and prediction.uncertainty is not None:
        write_volume(uncertainty, prediction.uncertainty, volume.geometry, compress=job.compress)
    return {
        "segmentation": str(output),
        "uncertainty": str(uncertainty) if uncertainty else None,
        "axis": prediction.axis,
        "slice_uncertainty": prediction.slice_uncertainty,
        "drawn_slices": len({number for each in known for number in each.drawn}),
        "labels": labelmap.labels,
        "seconds": round(time.monotonic() - started, 2),
    }


def _endings(job: ApplyJob, path: Path, grid: Geometry, events: EventWriter) -> _Endings:
    """The endings of a volume's results in a folder, of a format that can store its geometry."""
    endings = _COMPRESSED_ENDINGS if job.compress else _RAW_ENDINGS
    into_folder = any(
        place is not None and not (names_an_image(place) or names_a_dicom_segmentation(place))
        for place in (job.output, job.uncertainty)
    )
    if not into_folder or can_hold(endings.segmentation, grid):
        return endings
    events.warning(
        f"NIfTI cannot hold where the voxels of {path.name} lie"
        + ("" if grid.is_perpendicular else " (it is sheared)")
        + "; results in a folder are written as NRRD"
    )
    return _RAW_ENDINGS


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


def _outputs(volumes: list[Path], output: Path, endings: list[str]) -> list[Path]:
    """One file for each volume: the output itself if it is a file, else named after the volumes."""
    if names_an_image(output) or names_a_dicom_segmentation(output):
        return [output]
    names: list[str] = []
    taken: set[str] = set()
    for volume in volumes:
        name = stem = volume_stem(volume)
        number = 1
        # Volumes of the same name from different folders are told apart by a number, also where
        # the names differ in upper and lower case only, which some disks do not distinguish.
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return [output / f"{name}{ending}" for name, ending in zip(names, endings, strict=True)]
