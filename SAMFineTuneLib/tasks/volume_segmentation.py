"""Segmenting one 3-D image within an apply: read, told of what is drawn in it, predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.examples.channel_names import order_warning
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.jobs.schema import ApplyJob
from SAMFineTuneLib.models.model_file import ModelCard
from SAMFineTuneLib.prediction.between_slices import keep_known
from SAMFineTuneLib.prediction.known_structure import KnownStructure
from SAMFineTuneLib.prediction.stray_regions import drop_stray_regions
from SAMFineTuneLib.prediction.volume_prediction import (
    Prediction,
    keep_largest_components,
    predict_volume,
    slice_axis,
)
from SAMFineTuneLib.slices.expected_images import as_expected
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.tasks.drawn_slices import known_structures
from SAMFineTuneLib.volumes import Volume
from SAMFineTuneLib.volumes.case import read_case

_SLICES_AT_A_TIME = 4

Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Case:
    """The images of one case that are segmented.

    Attributes:
        path: the first image.
        further: the further images.
        series: which DICOM series of the first image.
    """

    path: Path
    further: Sequence[Path] = ()
    series: str | None = None


@dataclass(frozen=True)
class VolumeSegmentation:
    """What all images of an apply have in common.

    Attributes:
        job: the job.
        segmenter: the tuned network.
        card: of the tuned model.
        warn: called with a sentence that the user should read.
        log: called with a sentence on how the work goes.
    """

    job: ApplyJob
    segmenter: AutomaticSegmenter
    card: ModelCard
    warn: Tell
    log: Tell

    def read(self, case: Case, frame: int | None = None) -> Volume:
        """The images of a case, or one frame of them, with warnings where the model may not fit.

        Raises:
            InputError: a file cannot be used.
        """
        card, name = self.card, case.path.name
        volume = read_case(case.path, case.further, case.series, frame)
        volume = as_expected(volume, card.normalisation, name, tuple(card.channels))
        # That a picture has no place need not be told of each of thousands.
        listed = self.job.image_list is not None
        for remark in () if listed and 1 in volume.geometry.shape else volume.remarks:
            self.warn(remark)
        self._tell_channels([case.path, *case.further])
        if card.normalisation.kind == "calibrated" and _cannot_be_ct(volume):
            self.warn(
                f"{name} does not look like a CT, and the model was tuned on images with values "
                "as in CT (air at -1000, water at 0); do not expect it to find much"
            )
        return volume

    def known(self, case: Case, volume: Volume, frame: int | None = None) -> list[KnownStructure]:
        """The model's structures that are drawn in an image that was read."""
        names = {label.value: label.name for label in self.card.labels}
        terms = {label.value: label.terminology for label in self.card.labels}
        axis = slice_axis(self.card, volume)
        return known_structures(
            self.job.drawn, case.path, volume, names, axis, self.warn, terms, case.series, frame
        )

    def predict(
        self,
        volume: Volume,
        known: Sequence[KnownStructure],
        with_uncertainty: bool,
        progress: Progress,
    ) -> Prediction:
        """Segments an image that was read."""
        prediction = predict_volume(
            self.segmenter,
            self.card,
            volume,
            self.job.batch or _SLICES_AT_A_TIME,
            with_uncertainty,
            progress,
            known,
            self.job.tidy,
        )
        labelmap = prediction.labelmap
        if self.job.tidy:
            self._tidy(SliceStack.of(labelmap, prediction.axis), known)
        if not self.job.largest_component:
            return prediction
        labelmap = keep_largest_components(labelmap)
        keep_known(SliceStack.of(labelmap, prediction.axis), known)
        return replace(prediction, labelmap=labelmap)

    def _tidy(self, labels: SliceStack, known: Sequence[KnownStructure]) -> None:
        dropped = drop_stray_regions(labels, self.card.shapes, known)
        if dropped:
            keep_known(labels, known)
            self.log(f"{counted(dropped, 'stray region')} dropped")

    def _tell_channels(self, files: Sequence[Path]) -> None:
        channels = self.card.channels
        if channels:
            order = ", ".join(
                f"{name} from {own.name}" for name, own in zip(channels, files, strict=True)
            )
            self.log(f"the model takes {order}")
        doubt = order_warning(channels, files)
        if doubt:
            self.warn(doubt)


def drawn_slices(known: Sequence[KnownStructure]) -> int:
    """On how many slices something is drawn."""
    return len({number for each in known for number in each.drawn})


def _cannot_be_ct(volume: Volume) -> bool:
    """Whether a volume has no negative values, which a CT has at least in fat."""
    if volume.modality is not None:
        return volume.modality != "CT"
    first = volume.array if volume.images == 1 else volume.array[..., 0]
    return float(first.min()) >= 0
