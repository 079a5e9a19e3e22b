"""Example volumes to the labelled slices that a fine-tune learns from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.drawn_axis import widest_axis
from SAMFineTuneLib.slices.intensity import (
    IntensityNormalisation,
    IntensityWindow,
    VoxelSample,
    find_normalisation,
    sample_voxels,
)
from SAMFineTuneLib.slices.labelled import (
    EmptySlices,
    LabelledSlices,
    known_labels,
    tells_of_slices,
)
from SAMFineTuneLib.slices.stack import SliceStack, drawn_instead, suggest_axis
from SAMFineTuneLib.training.example_labels import Label, LabelsOfExample, number_labels
from SAMFineTuneLib.volumes import (
    Geometry,
    Labelmap,
    labelmap_onto,
    read_grid,
    read_labelmap,
    read_volume,
)
from SAMFineTuneLib.volumes.dicom_frame_of_reference import other_frame_of_reference
from SAMFineTuneLib.volumes.dicom_labels import dicom_labels
from SAMFineTuneLib.volumes.image_as_labels import require_other_values, require_two_files
from SAMFineTuneLib.volumes.label_matching import named_labels

# Empty slices kept of each volume, for every labelled one; they teach little and look alike. Of a
# volume in which nothing is to be found: for every labelled one of the others, on average.
_EMPTY_PER_LABELLED = 2
_FEWEST_EMPTY = 4

# The model's axis when its volumes were cut along different ones, each along its widest spacing.
WIDEST = "widest"


@dataclass(frozen=True)
class ExampleSource:
    """A volume, its segmentation, and what is known of it; see `known_labels`.

    `labels` are numbers in this segmentation, and so are those of `label_names`, which count in
    place of the names that the file tells. A segmentation without a labelled voxel is of a volume
    in which nothing is to be found, where it is said of some slices at least that they are empty.
    """

    volume: Path
    segmentation: Path
    labels: Literal["all"] | list[int] = "all"
    label_names: Mapping[int, str] = field(default_factory=dict)
    axis: str = "auto"
    labelled: LabelledSlices = "nonempty"
    empty: EmptySlices = "auto"
    complete: Sequence[int] = ()
    unfinished: Sequence[int] = ()
    known_empty: Sequence[int] = ()
    extent: tuple[int, int] | None = None
    on_top: Sequence[str] = ()
    series: str | None = None


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

    @property
    def labelled_volumes(self) -> int:
        """How many of the volumes show a structure."""
        return len({each.volume for each in self.slices if each.is_labelled})


class _KnownSlice(NamedTuple):
    """One slice as it lies in the files, and which of the volume's labels are known on it."""

    number: int
    pixels: np.ndarray
    mask: np.ndarray
    known: np.ndarray


@dataclass(frozen=True, eq=False)
class _Opened:
    """What is kept of a volume: the slices to learn from, not the volume.

    Attributes:
        source: where it comes from.
        labels: in the segmentation's own numbers. None where it shows nothing at all and all
            labels are meant; `_KnownSlice.known` then has one column, which holds for each.
        present: those of its labels that have voxels.
        named: what the segmentation tells of its labels.
        axis: along which it is cut.
        spacing: mm between rows and between columns.
        slices: those to learn from.
        sample: of the volume's voxels.
        warnings: what the user should know.
    """

    source: ExampleSource
    labels: list[int] | None
    present: list[int]
    named: LabelsOfExample
    axis: str
    spacing: tuple[float, float]
    slices: list[_KnownSlice]
    sample: VoxelSample
    warnings: list[str]
    series: str | None = None

    @property
    def volume(self) -> tuple[Path, str | None]:
        """What makes a volume another one than those of the other examples."""
        return self.source.volume.resolve(), self.series


def load_examples(
    sources: Iterable[ExampleSource],
    names: dict[int, str] | None = None,
    check: Callable[[], None] = lambda: None,
    normalisation: IntensityNormalisation | None = None,
    tuned: Sequence[Label] = (),
    model: str = "",
) -> TrainingSet:
    """Reads the examples and cuts them into slices.

    Labels of different examples are one structure by `match_labels`; the structure keeps the
    number of the first example that has it, or of the model that is gone on from.

    Args:
        sources: at least one example.
        names: names of structures, by number, that the files do not tell, or tell otherwise.
        check: called between volumes; may raise to stop.
        normalisation: that of an earlier model; None finds one on the examples.
        tuned: the labels of that model.
        model: how messages name it.

    Raises:
        InputError: a file that cannot be used, a label that is absent, labels that contradict
            each other, no labelled slice.
    """
    opened = _open_all(list(sources), check)
    numbered = number_labels([each.named for each in opened], names or {}, tuned, model)
    labels, numbers = numbered.labels, numbered.numbers
    _refuse_absent(opened, numbers)
    normalisation = normalisation or find_normalisation([each.sample for each in opened])
    # A volume with several segmentations is one volume: to hold it out, all of it has to go.
    volumes = list(dict.fromkeys(each.volume for each in opened))
    slices = [
        labelled
        for each, own in zip(opened, numbers, strict=True)
        for labelled in _slices(volumes.index(each.volume), each, own, labels, normalisation)
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
        warnings=[
            *numbered.remarks,
            *_unsaid(opened, numbers, labels),
            *_warnings(opened, labels, slices),
        ],
    )


def _open_all(sources: list[ExampleSource], check: Callable[[], None]) -> list[_Opened]:
    """All examples in their order; those that show nothing are cut as the others are."""
    opened: dict[int, _Opened] = {}
    bare: list[int] = []
    for index, source in enumerate(sources):
        check()
        labelmap = _labelmap_of(source)
        if labelmap.labels:
            opened[index] = _open(source, labelmap)
        else:
            bare.append(index)
    if not opened:
        raise _empty(sources[bare[0]])
    axis = Counter(each.axis for each in opened.values()).most_common(1)[0][0]
    labelled = [_labelled_count(each) for each in opened.values()]
    most = max(_FEWEST_EMPTY, round(_EMPTY_PER_LABELLED * sum(labelled) / len(labelled)))
    for index in bare:
        check()
        labelmap = _labelmap_of(sources[index])
        opened[index] = _open(sources[index], labelmap, axis, most)
        if not opened[index].slices:
            raise _empty(sources[index])
    return [opened[index] for index in range(len(sources))]


def _labelmap_of(source: ExampleSource) -> Labelmap:
    if source.labels == "all":
        require_two_files(source.volume, source.segmentation)
    # Contours have no grid of their own, and a DICOM segmentation may hold single slices of one.
    is_dicom = dicom_labels(source.segmentation) is not None
    return read_labelmap(
        source.segmentation,
        empty_ok=True,
        over=read_grid(source.volume, source.series) if is_dicom else None,
        wanted=None if source.labels == "all" else source.labels,
        on_top=source.on_top,
    )


def _labelled_count(opened: _Opened) -> int:
    return sum(bool(np.isin(each.mask, opened.labels or []).any()) for each in opened.slices)


def _empty(source: ExampleSource) -> InputError:
    return InputError(
        f"the segmentation '{source.segmentation}' is empty: all its voxels are 0",
        "Label the structure on some slices first, or name the right file; of an example beside "
        "others in which nothing is to be found, say so: empty slices by their numbers, or "
        '"outside" for all',
        code="empty_segmentation",
    )


def _open(source: ExampleSource, labelmap: Labelmap, axis: str = "axial", most: int = 0) -> _Opened:
    """Reads the volume of a segmentation; `axis` and `most` are for one that shows nothing."""
    volume = read_volume(source.volume, source.series)
    if source.labels == "all":
        require_other_values(volume, labelmap, source.volume, source.segmentation)
    present = labelmap.labels
    told = named_labels(labelmap, source.label_names)
    labels: list[int] | None = present if source.labels == "all" else source.labels
    nothing = not present
    if nothing and source.labels == "all":
        labels = None
    labelmap = _onto(labelmap, volume.geometry)
    if source.axis != "auto":
        axis = source.axis
    elif (
        not nothing
        or widest_axis(volume.geometry.spacing[::-1]) is not None
        or 1 in volume.array.shape
    ):
        axis = suggest_axis(_only(labelmap, labels or []))
    sparser = drawn_instead(_only(labelmap, labels or []), axis)
    images = SliceStack.of(volume, axis)
    # A number that no voxel has stands for all labels.
    asked = [1] if labels is None else labels
    masks = SliceStack.of(labelmap, axis)
    return _Opened(
        source=source,
        labels=labels,
        present=present,
        named=LabelsOfExample(source.segmentation.name, labels or [], told, labelmap.colours),
        axis=axis,
        spacing=images.pixel_spacing,
        slices=_known_slices(images, masks, asked, source, most if nothing else None),
        sample=sample_voxels(volume),
        warnings=[
            *volume.remarks,
            *labelmap.remarks,
            *other_frame_of_reference(labelmap, source.segmentation, source.volume),
            *_axis_warnings(source, axis, sparser),
        ],
        series=volume.series,
    )


def _onto(labelmap: Labelmap, geometry: Geometry) -> Labelmap:
    if labelmap.labels:
        return labelmap_onto(labelmap, geometry)
    nothing = np.zeros(geometry.shape, labelmap.array.dtype)
    return replace(labelmap, array=nothing, geometry=geometry)


def _only(labelmap: Labelmap, labels: list[int]) -> Labelmap:
    """The labelmap with these labels alone; whole where it has none of them."""
    kept = np.where(np.isin(labelmap.array, labels), labelmap.array, 0)
    return replace(labelmap, array=kept) if kept.any() else labelmap


def _refuse_absent(opened: list[_Opened], numbers: list[dict[int, int]]) -> None:
    """A listed label without a voxel is absent, where that is said and other examples show it."""
    shown = {
        own[value]
        for each, own in zip(opened, numbers, strict=True)
        for value in each.labels or []
        if value in each.present
    }
    for each, own in zip(opened, numbers, strict=True):
        for column, label in enumerate(each.labels or []):
            said = any(one.known[column] for one in each.slices)
            if label in each.present or (own[label] in shown and said):
                continue
            file = each.source.segmentation.name
            has = ", ".join(map(str, each.present)) or "no label"
            raise InputError(
                f"label {label} does not occur in {file}, which has {has}",
                "say on which slices it is absent (complete or empty ones, or the extent)"
                if own[label] in shown
                else "choose with --labels among those",
                code="label_absent",
            )


def _known_slices(
    images: SliceStack,
    masks: SliceStack,
    labels: list[int],
    source: ExampleSource,
    most_empty: int | None = None,
) -> list[_KnownSlice]:
    """Slices of which something is known; so many at the most where the volume shows nothing."""
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
    chosen = _thinned(slices, labels, listed) if most_empty is None else _spread(slices, most_empty)
    return [each._replace(pixels=each.pixels.copy(), mask=each.mask.copy()) for each in chosen]


def _slices(
    index: int,
    opened: _Opened,
    numbers: Mapping[int, int],
    labels: list[Label],
    normalisation: IntensityNormalisation,
) -> list[LabelledSlice]:
    """The slices of one example; `numbers` are its labels' in the training set."""
    window = normalisation.window_for(opened.sample)
    classes = {label.value: number for number, label in enumerate(labels, start=1)}
    own = {} if opened.labels is None else {each: classes[numbers[each]] for each in opened.labels}
    # Labels that this volume's segmentation was not asked for are unknown everywhere in it.
    columns = list(classes.values()) if opened.labels is None else list(own.values())
    slices = []
    for each in opened.slices:
        known = np.zeros(len(labels) + 1, dtype=bool)
        known[0] = True
        known[columns] = each.known
        slices.append(
            LabelledSlice(
                image=window.apply(each.pixels).astype(np.float16),
                target=_target(each.mask, own, known),
                known=known,
                window=window,
                spacing=opened.spacing,
                volume=index,
                number=each.number,
            )
        )
    return slices


def _target(mask: np.ndarray, classes: Mapping[int, int], known: np.ndarray) -> np.ndarray:
    """Class numbers from the numbers in a file; `classes` tells one from the other."""
    target = np.zeros(mask.shape, dtype=np.uint8 if len(known) <= 256 else np.int32)
    for value, class_number in classes.items():
        if known[class_number]:
            target[mask == value] = class_number
    return target


def _thinned(slices: list[_KnownSlice], labels: list[int], listed: list[int]) -> list[_KnownSlice]:
    """All labelled slices, the empty ones that the user listed, of the others a selection."""
    labelled = [each for each in slices if np.isin(labels, each.mask)[each.known].any()]
    most = max(_FEWEST_EMPTY, _EMPTY_PER_LABELLED * len(labelled))
    shown = {each.number for each in labelled}
    labelled += [each for each in slices if each.number in set(listed) - shown]
    numbers = {each.number for each in labelled}
    empty = [each for each in slices if each.number not in numbers]
    return sorted(labelled + _spread(empty, most), key=lambda each: each.number)


def _spread(slices: list[_KnownSlice], most: int) -> list[_KnownSlice]:
    """So many of them at the most, evenly spread."""
    if len(slices) <= most:
        return slices
    chosen = np.unique(np.linspace(0, len(slices) - 1, most).round().astype(int))
    return [slices[position] for position in chosen]


def _axis_warnings(source: ExampleSource, axis: str, sparser: str | None) -> list[str]:
    if sparser is None:
        return []
    return [
        f"{source.volume.name} is cut into {axis} slices, but its labels look as if they were "
        f"drawn on single {sparser} ones; if so, choose the {sparser} axis"
    ]


def _unsaid(opened: list[_Opened], numbers: list[dict[int, int]], labels: list[Label]) -> list[str]:
    """Examples that say something of slices and show only some of the structures, or none."""
    words = []
    for each, own in zip(opened, numbers, strict=True):
        file = each.source.segmentation.name
        others = [label for label in labels if label.value not in own.values()]
        if not each.present:
            words.append(
                f"nothing is labelled in {file}: {len(each.slices)} slices of "
                f"{each.source.volume.name} are learnt from as empty"
            )
        elif each.source.labels == "all" and others and _tells(each.source):
            names = ", ".join(f"{label.value} {label.name}".strip() for label in others)
            words.append(
                f"what was said of empty and complete slices does not hold for {names}, of which "
                f"{file} shows nothing; where it does, list the labels in a file of examples"
            )
    return words


def _tells(source: ExampleSource) -> bool:
    return tells_of_slices(
        source.extent, source.labelled, source.empty, source.complete, source.known_empty
    )


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
