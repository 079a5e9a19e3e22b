"""The library for Python users: fine-tune, segment and measure in this process.

import SAMFineTuneLib as sft

sft.finetune([("ct.nrrd", "labels.seg.nrrd")], "liver.safetensors", steps=300)
model = sft.load_model("liver.safetensors")
found = sft.apply(model, sft.read_volume("other.nrrd"))
time = sft.read_time("film.nii.gz")
film = [sft.apply(model, "film.nii.gz", frame=number) for number in range(time.frames)]
sft.write_frames("found.nii.gz", film, time)
print(sft.evaluate(found, sft.read_labelmap("truth.seg.nrrd")).to_json())
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SAMFineTuneLib.device import choose_device, ready_to_predict
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.evaluation.report import Report
from SAMFineTuneLib.evaluation.report import evaluate as _measure
from SAMFineTuneLib.evaluation.surface import TOLERANCE_MM
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import FinetuneJob, make_job
from SAMFineTuneLib.models import model_file
from SAMFineTuneLib.models.model_file import ModelCard, read_card
from SAMFineTuneLib.prediction.stray_regions import drop_stray_regions
from SAMFineTuneLib.prediction.volume_prediction import keep_largest_components, predict_volume
from SAMFineTuneLib.slices.expected_images import as_expected
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.tasks.finetune import run_finetune
from SAMFineTuneLib.volumes import Labelmap, Volume, read_volume
from SAMFineTuneLib.volumes.case import read_case
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.worker.events import Event, EventWriter, parse_line

FilePath = str | os.PathLike[str]
ExampleFiles = tuple[FilePath | Sequence[FilePath], FilePath] | Mapping[str, Any]


@dataclass(frozen=True)
class LoadedModel:
    """A tuned model in memory.

    Attributes:
        segmenter: the network, in eval mode, on the device that was chosen.
        card: what the model finds, and how it was tuned.
    """

    segmenter: AutomaticSegmenter
    card: ModelCard


def finetune(
    examples: Sequence[ExampleFiles],
    output: FilePath,
    *,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> ModelCard:
    """Fine-tunes a network on a few labelled slices and writes the tuned model.

    Runs in this process, on the threads of torch, until it has ended.

    Args:
        examples: pairs (volume, segmentation) of files, or mappings with the fields of
            `jobs.schema.Example`, which can also describe what is known of slices. In place of a
            volume may stand the files of all images of a case. Empty where `image_list` is given.
        output: the tuned model, whose name ends in .safetensors.
        on_event: called with progress, warnings and previews (`worker.events`).
        settings: further fields of `jobs.schema.FinetuneJob`: preset, backbone, steps, minutes …
            A data set is learnt from with image_list="train.csv", a text file with an image and its
            mask on each line, and validation_list="val.csv". Volumes without labels are learnt from
            as well with unlabelled=["other.nrrd"]. With initial_model=model and go_on=True a tuned
            model learns on from its own examples; `output` may be the same file.

    Returns:
        The card of the model: its labels, and what was measured on slices that were held out.

    Raises:
        InputError: a file or a setting cannot be used.
    """
    listed = [_fields_of(each) for each in examples]
    job = make_job(FinetuneJob, {"examples": listed, "output": Path(output), **settings})
    with tempfile.TemporaryDirectory() as folder:
        events = EventWriter(None, _Listener(on_event))
        run_finetune(job, JobFolder(Path(folder)), events, Control())
    return read_card(job.output)


def load_model(
    path: FilePath, device: str = "auto", checkpoint: FilePath | None = None
) -> LoadedModel:
    """Loads a tuned model, with the weights of its backbone.

    Args:
        path: the tuned model.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        checkpoint: file of the backbone's weights, if they are neither bundled nor in the cache.

    Raises:
        InputError: the file cannot be used, the weights are missing, or there is no such device.
    """
    weights = None if checkpoint is None else Path(checkpoint)
    segmenter, card = model_file.load_model(
        Path(path), lambda card: find_weights(card.backbone, weights)
    )
    return LoadedModel(ready_to_predict(segmenter, choose_device(device)), card)


def apply(
    model: LoadedModel | FilePath,
    volume: Volume | FilePath | Sequence[FilePath],
    *,
    batch: int = 4,
    largest_component: bool = False,
    frame: int | None = None,
    tidy: bool = True,
) -> Labelmap:
    """Segments a whole volume, or one frame of an image with an axis of time.

    Args:
        model: a loaded model, or its file.
        volume: a volume, or its file or DICOM folder, or the files of all images of a case.
        batch: number of slices at a time; memory grows with it.
        largest_component: keep only the largest connected region of each label.
        frame: which frame of a file with an axis of time, counted from 0; None if it has none, and
            for a volume, which is read as one frame.
        tidy: whether neighbouring slices that look alike decide together, and small regions apart
            from a structure that is in one piece on every example of the model are dropped.

    Returns:
        Labels on the grid of the volume, with their names and colours.

    Raises:
        InputError: a file cannot be used, or the volume has the same value in every voxel.
    """
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    image = _volume_of(volume, frame)
    normalisation, channels = loaded.card.normalisation, tuple(loaded.card.channels)
    image = as_expected(image, normalisation, "the volume", channels)
    prediction = predict_volume(loaded.segmenter, loaded.card, image, batch, smooth=tidy)
    found = prediction.labelmap
    if tidy:
        drop_stray_regions(SliceStack.of(found, prediction.axis), loaded.card.shapes)
    return keep_largest_components(found) if largest_component else found


def evaluate(
    prediction: Labelmap, reference: Labelmap, tolerance_mm: float = TOLERANCE_MM
) -> Report:
    """DSC and NSD of each label in whole volumes; see `evaluation.report.evaluate`."""
    return _measure(prediction, reference, tolerance_mm=tolerance_mm)


def _volume_of(volume: Volume | FilePath | Sequence[FilePath], frame: int | None) -> Volume:
    if isinstance(volume, Volume):
        if frame is not None:
            raise InputError(
                f"frame {frame} is asked for of a volume, which has no axis of time",
                "Give the file, or read that frame with read_volume(file, frame=number)",
                code="no_frames",
            )
        return volume
    if isinstance(volume, str | os.PathLike):
        return read_volume(volume, frame=frame)
    if not isinstance(volume, Sequence) or not volume:
        raise InputError(
            "no image is named to be segmented"
            if isinstance(volume, Sequence)
            else f"{type(volume).__name__} is neither a volume nor a file",
            "Give a volume, its file, or the files of all images of a case; an array becomes a "
            "volume by Volume(array, geometry), which says where it lies",
            code="no_image",
        )
    first, *further = (Path(each) for each in volume)
    return read_case(first, further, frame=frame)


def _fields_of(example: ExampleFiles) -> dict[str, Any]:
    if isinstance(example, Mapping):
        return dict(example)
    if isinstance(example, str | os.PathLike) or len(example) != 2:
        raise InputError(
            f"an example is a volume and its segmentation, which {example!r} is not",
            "Give a pair of files, or a mapping with the fields of an example",
            code="bad_example",
        )
    volume, segmentation = example
    images = [volume] if isinstance(volume, str | os.PathLike) else volume
    return {
        "volume": [os.fspath(each) for each in images],
        "segmentation": os.fspath(segmentation),
    }


class _Listener:
    """A text stream for `EventWriter` that parses its lines and passes the events on."""

    def __init__(self, on_event: Callable[[Event], None] | None) -> None:
        self._on_event = on_event

    def write(self, line: str) -> int:
        if self._on_event is not None:
            self._on_event(parse_line(line))
        return len(line)

    def flush(self) -> None:
        return
