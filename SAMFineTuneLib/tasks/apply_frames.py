"""Segmenting an image with an axis of time, frame by frame, into files with the same axis."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.models.model_file import ModelCard
from SAMFineTuneLib.tasks.apply_outputs import Output
from SAMFineTuneLib.tasks.volume_segmentation import (
    Case,
    Progress,
    Tell,
    VolumeSegmentation,
    drawn_slices,
)
from SAMFineTuneLib.volumes import Geometry, Labelmap, Volume
from SAMFineTuneLib.volumes.decoded_once import decoded_once
from SAMFineTuneLib.volumes.frames import TimeAxis, require_frame
from SAMFineTuneLib.volumes.frames_writing import written_frames
from SAMFineTuneLib.volumes.labelmap import smallest_label_type


def chosen_frames(case: Case, axis: TimeAxis, frames: Sequence[int] | None) -> list[int]:
    """The frames to segment, ascending: those that were asked for, otherwise all.

    Raises:
        InputError: there is no such frame.
    """
    if frames is None:
        return list(range(axis.frames))
    return sorted(require_frame(case.path, axis, frame) for frame in frames)


def apply_to_frames(
    segmentation: VolumeSegmentation,
    case: Case,
    grid: Geometry,
    axis: TimeAxis,
    output: Output,
    progress: Callable[[float], Progress],
) -> dict[str, Any]:
    """Segments the chosen frames of a case; the result has all frames, the others empty.

    Memory holds one frame, unless its file must be decoded whole.

    Args:
        segmentation: the model and the job.
        case: its first image has several frames.
        grid: the grid of each frame.
        axis: the axis of time of this image.
        output: where the results go.
        progress: gives, for the number of frames before this one, what is called with finished
            and all slices of a frame; it may raise to stop, and no file appears then.

    Raises:
        InputError: a file cannot be used or written.
    """
    started = time.monotonic()
    chosen = chosen_frames(case, axis, segmentation.job.frames)
    segmentation = replace(segmentation, warn=_once(segmentation.warn), log=_once(segmentation.log))
    compress, kind = segmentation.job.compress, _kind_of_labels(segmentation.card)
    found: list[dict[str, Any]] = []
    labels: set[int] = set()
    axes: set[str] = set()
    with ExitStack() as stack:
        names = _names(segmentation.card, grid)
        store = stack.enter_context(
            written_frames(output.segmentation, grid, axis, kind, names, compress)
        )
        doubts = None
        if output.uncertainty is not None:
            doubts = stack.enter_context(
                written_frames(output.uncertainty, grid, axis, np.float32, None, compress)
            )
        stack.enter_context(decoded_once())
        for done, number in enumerate(chosen):
            volume = segmentation.read(case, number)
            _require_grid(case, volume, grid, number)
            known = segmentation.known(case, volume, number)
            prediction = segmentation.predict(volume, known, doubts is not None, progress(done))
            store.put(number, prediction.labelmap.array)
            if doubts is not None and prediction.uncertainty is not None:
                doubts.put(number, prediction.uncertainty)
            labels.update(prediction.labelmap.labels)
            axes.add(prediction.axis)
            found.append(
                {
                    "frame": number,
                    "slice_uncertainty": prediction.slice_uncertainty,
                    "drawn_slices": drawn_slices(known),
                    "labels": prediction.labelmap.labels,
                }
            )
    return {
        "segmentation": str(output.segmentation),
        "uncertainty": str(output.uncertainty) if output.uncertainty else None,
        "axis": axes.pop(),
        "slice_uncertainty": [],
        "drawn_slices": sum(each["drawn_slices"] for each in found),
        "labels": sorted(labels),
        "frame_count": axis.frames,
        "frames": found,
        "seconds": round(time.monotonic() - started, 2),
    }


def _kind_of_labels(card: ModelCard) -> type[np.generic]:
    return smallest_label_type(max((label.value for label in card.labels), default=0))


def _names(card: ModelCard, geometry: Geometry) -> Labelmap:
    """A labelmap of one voxel that tells the names, colours and terms of all labels."""
    return Labelmap(
        np.zeros((1, 1, 1), np.uint8),
        replace(geometry, size=(1, 1, 1)),
        {label.value: label.name or f"Segment_{label.value}" for label in card.labels},
        {label.value: label.colour for label in card.labels if label.colour is not None},
        terminologies={
            label.value: label.terminology for label in card.labels if label.terminology
        },
    )


def _require_grid(case: Case, volume: Volume, grid: Geometry, number: int) -> None:
    if not volume.geometry.same_as(grid):
        raise InputError(
            f"the frames of '{case.path}' differ in their geometry: frame {number} lies elsewhere "
            "than the others",
            "Save frames of one geometry in a file of their own",
            code="uneven_frames",
        )


def _once(tell: Tell) -> Tell:
    """Tells every sentence once: what is said of one frame holds for all."""
    told: set[str] = set()

    def tell_new(text: str) -> None:
        if text not in told:
            told.add(text)
            tell(text)

    return tell_new
