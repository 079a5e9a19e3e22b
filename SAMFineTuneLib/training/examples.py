"""Example volumes to the labelled slices that a fine-tune learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.slices.intensity import (
    IntensityNormalisation,
    IntensityWindow,
    VoxelSample,
    find_normalisation,
    sample_voxels,
)
from SAMFineTuneLib.slices.labelled import EmptySlices, LabelledSlices, known_labels
from SAMFineTuneLib.slices.stack import SliceStack, sparser_axis, suggest_axis
from SAMFineTuneLib.volumes import (
    labelmap_onto,
    read_labelmap,
    read_volume,
)
from SAMFineTuneLib.volumes.dicom_frame_of_reference import other_frame_of_reference

# Empty slices kept of each volume, for every labelled one; they teach little and look alike.
_EMPTY_PER_LABELLED = 2

# The model's axis when its volumes were cut along different ones, each along its widest spacing.
WIDEST = "widest"


@dataclass(frozen=True)
class ExampleSource:
    """A volume, its segmentation, and what is known of it; see `known_labels`."""

    volume: Path
    segmentation: Path
    labels: Literal["all"] | list[int] = "all"
    axis: str = "auto"
    labelled: LabelledSlices = "nonempty"
    empty: EmptySlices = "auto"
    complete: Sequence[int] = ()
    unfinished: Sequence[int] = ()
    known_empty: Sequence[int] = ()
    extent: tuple[int, int] | None = None


@dataclass(frozen=True)
class Label:
    """A structure to segment: its number in the labelmaps, and what the user says it is."""

    value: int
    name: str = ""
    colour: tuple[float, float, float] | None = None
    terminology: str = ""


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """One slice with what is known of it.

    Attributes:
        image: (rows, columns) float16, 0 to 1 in the volume's intensity window.
        target: (rows, columns) class numbers, 0 for background; unknown classes count as such.
        known: (classes,) bool, background first: which classes `target` tells the truth of.
        window: the volume's intensity window.
        spacing: mm between rows and between columns.
        volume: index of the volume; several examples may be of one.
        number: slice number in the volume.
    """

    image: np.ndarray
    target: np.ndarray
    known: np.ndarray
    window: IntensityWindow
    spacing: tuple[float, float]
    volume: int
    number: int

    @cached_property
    def is_labelled(self) -> bool:
        """Whether a structure is to be seen; the other slices are known to be empty."""
        return bool(self.target.any())

    @cached_property
    def classes(self) -> set[int]:
        """Class numbers of the structures in the slice."""
        return {int(each) for each in np.unique(self.target) if each > 0}


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Everything that a fine-tune learns from."""

    slices: list[LabelledSlice]
    labels: list[Label]
    axis: str
    normalisation: IntensityNormalisation
    volumes: int
    warnings: list[str] = field(default_factory=list)


class _KnownSlice(NamedTuple):
    """One slice as it lies in the files, and which of the volume's labels are known on it."""

    number: int
    pixels: np.ndarray
    mask: np.ndarray
    known: np.ndarray


@dataclass(frozen=True, eq=False)
class _Opened:
    """What is kept of a volume: the slices to learn from, not the volume."""

    source: ExampleSource
    labels: list[int]
    labelmap_names: dict[int, str]
    labelmap_colours: dict[int, tuple[float, float, float]]
    labelmap_terminologies: dict[int, str]
    axis: str
    spacing: tuple[float, float]
    slices: list[_KnownSlice]
    sample: VoxelSample
    warnings: list[str]


def load_examples(
    sources: Iterable[ExampleSource],
    names: dict[int, str] | None = None,
    check: Callable[[], None] = lambda: None,
    normalisation: IntensityNormalisation | None = None,
) -> TrainingSet:
    """Reads the examples and cuts them into slices.

    Args:
        sources: at least one example.
        names: names of labels that the files do not tell, or tell otherwise.
        check: called between volumes; may raise to stop.
        normalisation: that of an earlier model; None finds one on the examples.

    Raises:
        InputError: a file that cannot be used, a label that is absent, no labelled slice.
    """
    opened = []
    for source in sources:
        check()
        opened.append(_open(source))
    labels = _labels(opened, names or {})
    normalisation = normalisation or find_normalisation([each.sample for each in opened])
    # A volume with several segmentations is one volume: to hold it out, all of it has to go.
    volumes = list(dict.fromkeys(each.source.volume.resolve() for each in opened))
    slices = [
        labelled
        for each in opened
        for labelled in _slices(
            volumes.index(each.source.volume.resolve()), each, labels, normalisation
        )
    ]
    slices.sort(key=lambda each: each.volume)
    if not any(each.is_labelled for each in slices):
        raise InputError(
            "none of the slices to learn from is labelled",
            "label at least one slice, or check the numbers given to --labelled",
            code="no_labelled_slice",
        )
    axes = {each.axis for each in opened}
    return TrainingSet(
        slices=slices,
        labels=labels,
        axis=axes.pop() if len(axes) == 1 else WIDEST,
        normalisation=normalisation,
        volumes=len(volumes),
        warnings=_warnings(opened, labels, slices),
    )


def _open(source: ExampleSource) -> _Opened:
    volume = read_volume(source.volume)
    chosen_labels = None if source.labels == "all" else source.labels
    labelmap = read_labelmap(source.segmentation, over=volume.geometry, wanted=chosen_labels)
    present = labelmap.labels
    labels = present if source.labels == "all" else source.labels
    for label in labels:
        if label not in present:
            raise InputError(
                f"label {label} does not occur in {source.segmentation.name}, "
                f"which has {', '.join(map(str, present))}",
                "choose with --labels among those",
                code="label_absent",
            )
    labelmap = labelmap_onto(labelmap, volume.geometry)
    chosen = replace(labelmap, array=np.where(np.isin(labelmap.array, labels), labelmap.array, 0))
    axis = suggest_axis(chosen) if source.axis == "auto" else source.axis
    sparser = sparser_axis(chosen, axis)
    images = SliceStack.of(volume, axis)
    return _Opened(
        source=source,
        labels=labels,
        labelmap_names=labelmap.names,
        labelmap_colours=labelmap.colours,
        labelmap_terminologies=labelmap.terminologies,
        axis=axis,
        spacing=images.pixel_spacing,
        slices=_known_slices(images, SliceStack.of(labelmap, axis), labels, source),
        sample=sample_voxels(volume),
        warnings=[
            *volume.remarks,
            *labelmap.remarks,
            *other_frame_of_reference(labelmap, source.segmentation, source.volume),
            *_axis_warnings(source, axis, sparser),
        ],
    )


def _known_slices(
    images: SliceStack, masks: SliceStack, labels: list[int], source: ExampleSource
) -> list[_KnownSlice]:
    known = known_labels(
        masks,
        labels,
        source.labelled,
        source.empty,
        source.complete,
        source.unfinished,
        source.known_empty,
        source.extent,
    )
    listed = [*source.complete, *source.known_empty]
    if not isinstance(source.empty, str):
        listed += source.empty
    slices = [
        _KnownSlice(number, images[number], masks[number], known[number])
        for number in np.flatnonzero(known.any(axis=1)).tolist()
    ]
    return [
        each._replace(pixels=each.pixels.copy(), mask=each.mask.copy())
        for each in _thinned(slices, labels, listed)
    ]


def _labels(opened: list[_Opened], names: dict[int, str]) -> list[Label]:
    found: dict[int, Label] = {}
    for each in opened:
        for value in each.labels:
            known = found.get(value, Label(value))
            found[value] = Label(
                value,
                names.get(value) or known.name or each.labelmap_names.get(value, ""),
                known.colour or each.labelmap_colours.get(value),
                known.terminology or each.labelmap_terminologies.get(value, ""),
            )
    return [found[value] for value in sorted(found)]


def _slices(
    index: int, opened: _Opened, labels: list[Label], normalisation: IntensityNormalisation
) -> list[LabelledSlice]:
    window = normalisation.window_for(opened.sample)
    # Labels that this volume's segmentation was not asked for are unknown everywhere in it.
    columns = [[label.value for label in labels].index(value) for value in opened.labels]
    slices = []
    for each in opened.slices:
        known = np.zeros(len(labels) + 1, dtype=bool)
        known[0] = True
        known[1 + np.asarray(columns)] = each.known
        slices.append(
            LabelledSlice(
                image=window.apply(each.pixels).astype(np.float16),
                target=_target(each.mask, labels, known),
                known=known,
                window=window,
                spacing=opened.spacing,
                volume=index,
                number=each.number,
            )
        )
    return slices


def _target(mask: np.ndarray, labels: list[Label], known: np.ndarray) -> np.ndarray:
    target = np.zeros(mask.shape, dtype=np.uint8 if len(labels) < 256 else np.int32)
    for class_number, label in enumerate(labels, start=1):
        if known[class_number]:
            target[mask == label.value] = class_number
    return target


def _thinned(slices: list[_KnownSlice], labels: list[int], listed: list[int]) -> list[_KnownSlice]:
    """All labelled slices, the empty ones that the user listed, of the others a selection."""
    labelled = [each for each in slices if np.isin(labels, each.mask)[each.known].any()]
    most = max(4, _EMPTY_PER_LABELLED * len(labelled))
    shown = {each.number for each in labelled}
    labelled += [each for each in slices if each.number in set(listed) - shown]
    numbers = {each.number for each in labelled}
    empty = [each for each in slices if each.number not in numbers]
    if len(empty) > most:
        chosen = np.unique(np.linspace(0, len(empty) - 1, most).round().astype(int))
        empty = [empty[position] for position in chosen]
    return sorted(labelled + empty, key=lambda each: each.number)


def _axis_warnings(source: ExampleSource, axis: str, sparser: str | None) -> list[str]:
    if sparser is None:
        return []
    return [
        f"{source.volume.name} is cut into {axis} slices, but its labels look as if they were "
        f"drawn on single {sparser} ones; if so, choose the {sparser} axis"
    ]


def _warnings(opened: list[_Opened], labels: list[Label], slices: list[LabelledSlice]) -> list[str]:
    warnings = [warning for each in opened for warning in each.warnings]
    shown = set().union(*(each.classes for each in slices))
    warnings += [
        f"label {label.value} is on none of the slices to learn from; it will not be found"
        for class_number, label in enumerate(labels, start=1)
        if class_number not in shown
    ]
    if all(each.is_labelled for each in slices):
        warnings.append(
            "no slice is known to be empty; the model may see the structures where they are not "
            "(say on which slices they begin and end, or list empty slices)"
        )
    return warnings
