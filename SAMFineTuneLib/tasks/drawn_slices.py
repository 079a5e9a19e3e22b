"""What is known of a volume's structures from the slices that a user has drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from SAMFineTuneLib.errors import InputError, told_of
from SAMFineTuneLib.examples.example_frames import frames_of
from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.prediction.known_structure import Drawing, KnownStructure
from SAMFineTuneLib.slices.known_labels import known_labels
from SAMFineTuneLib.slices.stack import SliceStack, drawn_instead
from SAMFineTuneLib.volumes import Labelmap, Volume, labelmap_onto, read_labelmap
from SAMFineTuneLib.volumes.dicom.frame_of_reference import other_frame_of_reference
from SAMFineTuneLib.volumes.dicom.series import series_uid
from SAMFineTuneLib.volumes.image_as_labels import require_other_values, require_two_files
from SAMFineTuneLib.volumes.label_matching import (
    Matching,
    NamedLabel,
    match_labels,
    named_labels,
    renumbered,
)


def require_drawn(
    drawn: Sequence[Example],
    volumes: Sequence[Path],
    warn: Callable[[str], None],
    series: Sequence[str | None] = (),
) -> None:
    """Checks that the drawn slices can be used, before anything is computed.

    Args:
        drawn: examples.
        volumes: to be segmented.
        warn: called with a sentence where none of the examples is of one of the volumes.
        series: the DICOM series that was chosen for each volume; () where none was.

    Raises:
        InputError: a segmentation that is not there, that is the volume itself, or of which it is
            not known to which frame of the volume it belongs.
    """
    chosen = list(zip(volumes, series or [None] * len(volumes), strict=True))
    of_these = [
        each
        for each in drawn
        if any(_same_volume(each.volume, each.series, *volume) for volume in chosen)
    ]
    for each in of_these:
        if not each.segmentation.exists():
            raise InputError(
                f"there is no segmentation {each.segmentation}",
                "check the name of the file",
                code="no_such_file",
            )
        if each.labels == "all":
            require_two_files(each.volume, each.segmentation)
        frames_of(each)
    if drawn and not of_these:
        warn("none of the examples is of a volume that is segmented: nothing is known as drawn")


def known_structures(
    drawn: Sequence[Example],
    path: Path,
    volume: Volume,
    names: Mapping[int, str],
    axis: str,
    warn: Callable[[str], None] = lambda text: None,
    terminologies: Mapping[int, str] | None = None,
    series: str | None = None,
    frame: int | None = None,
) -> list[KnownStructure]:
    """What is known of the model's structures in one volume.

    A fine-tune may assume that a structure ends beyond its last drawn slice (`empty` "auto"). Here
    this is not assumed, because the model predicts where the structure ends.

    Args:
        drawn: examples; those of other volumes count for nothing.
        path: of the volume.
        volume: the same, read.
        names: the model's labels and their names, "" where they have none.
        axis: along which the model cuts the volume.
        warn: called with a sentence about drawn slices that cannot be used, and why.
        terminologies: the model's labels and their terminologies, where it has any.
        series: the DICOM series that was chosen for the path.
        frame: which frame of a volume with an axis of time was read.

    Raises:
        InputError: a segmentation that cannot be read or does not lie over the volume; slices that
            do not exist, or that are stated to be empty and are not; a label that has the number
            of one of the model's labels and another name.
    """
    model = [
        NamedLabel(value, name, (terminologies or {}).get(value, ""))
        for value, name in names.items()
    ]
    found: dict[tuple[int, int], KnownStructure] = {}
    for example in drawn:
        if not _same_volume(example.volume, example.series, path, series):
            continue
        drawn_on = {each.volume: each for each in frames_of(example)}
        if frame not in drawn_on:
            continue
        labelmap, labels = _of_model(example, volume, model, warn, drawn_on[frame].segmentation)
        along = (drawn_instead(labelmap, axis) or axis) if example.axis == "auto" else example.axis
        if along != axis and labelmap.labels:
            warn(
                f"{example.segmentation.name} was drawn on {along} slices, and the model looks at "
                f"{axis} ones: what was drawn is kept, but does not help between its slices"
            )
        for label, drawing in _drawings(example, labelmap, labels, along):
            key = (label, drawing.labels.axis)
            earlier = found[key].drawings if key in found else ()
            found[key] = KnownStructure(label, (*earlier, drawing))
    return list(found.values())


def _of_model(
    example: Example,
    volume: Volume,
    model: Sequence[NamedLabel],
    warn: Callable[[str], None],
    frame: int | None,
) -> tuple[Labelmap, list[int]]:
    """The example's labels that the model knows, in the model's numbers and on the volume's grid.

    A label that the example lists may have no voxel; then the structure is absent on the known
    slices. In a segmentation without any label all structures are, if some slices are known.
    """
    wanted = None if example.labels == "all" else example.labels
    labelmap = read_labelmap(
        example.segmentation,
        frame=frame,
        empty_ok=True,
        over=volume.geometry,
        wanted=wanted,
        on_top=example.on_top,
        merge=example.merge,
    )
    # A frame of several on which nothing is drawn is one that nobody has looked at.
    if frame is not None and example.frame is None and not labelmap.labels:
        return labelmap_onto(labelmap, volume.geometry, empty_anywhere=True), []
    if example.labels == "all":
        require_other_values(volume, labelmap, example.volume, example.segmentation)
    for remark in other_frame_of_reference(labelmap, example.segmentation, example.volume):
        warn(remark)
    with told_of(example.segmentation.name):
        labelmap = labelmap_onto(labelmap, volume.geometry, empty_anywhere=True)
    for remark in labelmap.remarks:
        warn(remark)
    if (
        not labelmap.labels
        and example.labels == "all"
        and example.slice_knowledge.states_empty_slices
    ):
        return labelmap, [each.value for each in model]
    asked = labelmap.labels if example.labels == "all" else sorted(example.labels)
    matching = _matched(example, labelmap, asked, model)
    for remark in matching.remarks:
        warn(remark)
    known = [label for label in asked if label in matching.numbers]
    _warn_of_labels(example, labelmap, known, asked, matching, model, warn)
    kept = np.where(np.isin(labelmap.array, known), labelmap.array, 0)
    numbers = {label: matching.numbers[label] for label in known}
    return renumbered(replace(labelmap, array=kept, names={}), numbers), [*numbers.values()]


def _matched(
    example: Example, labelmap: Labelmap, asked: Sequence[int], model: Sequence[NamedLabel]
) -> Matching:
    found = {label: NamedLabel(label) for label in asked}
    found |= {each.value: each for each in named_labels(labelmap, example.label_names)}
    file = example.segmentation.name
    matching = match_labels(model, list(found.values()), file, "the model", chosen=asked)
    matching.require(asked)
    return matching


def _warn_of_labels(
    example: Example,
    labelmap: Labelmap,
    known: Sequence[int],
    asked: Sequence[int],
    matching: Matching,
    model: Sequence[NamedLabel],
    warn: Callable[[str], None],
) -> None:
    file = example.segmentation.name
    unknown = [label for label in labelmap.labels if label in asked and label not in known]
    if unknown:
        others = ", ".join(str(label) for label in unknown)
        warn(f"the model does not know label {others} of {file}: what was drawn of it is left out")
    elif not known:
        warn(f"{file} shows none of the model's structures: nothing is known as drawn")
    numbers = {matching.numbers[label] for label in known}
    unsaid = [each for each in model if each.value not in numbers]
    if unsaid and example.labels == "all" and example.slice_knowledge.states_slices:
        others = ", ".join(f"{each.value} {each.name}".strip() for each in unsaid)
        warn(
            f"what was said of empty and complete slices does not hold for {others}, of which "
            f"{file} shows nothing; where it does, list the labels in a file of examples"
        )


def _drawings(
    example: Example, labelmap: Labelmap, labels: list[int], axis: str
) -> list[tuple[int, Drawing]]:
    if not labels:
        return []
    stack = SliceStack.of(labelmap, axis)
    knowledge = example.slice_knowledge
    if knowledge.empty == "auto":
        knowledge = replace(knowledge, empty="none")
    known = known_labels(stack, labels, knowledge)
    return [(label, Drawing(stack, known[:, column])) for column, label in enumerate(labels)]


def _same_volume(
    path: Path, series: str | None, other_path: Path, other_series: str | None
) -> bool:
    """Whether two paths, each with a chosen series, are the same volume.

    A number and a UID may stand for the same series. Where a folder has only one series, none
    need be chosen.
    """
    if path.resolve() != other_path.resolve():
        return False
    if series == other_series or not path.is_dir():
        return True
    return series_uid(path, series) == series_uid(other_path, other_series)
