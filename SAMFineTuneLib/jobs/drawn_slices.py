"""Slices that a user has drawn, to what an apply knows of a volume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.prediction.known_structure import Drawing, KnownStructure
from SAMFineTuneLib.slices.labelled import known_labels
from SAMFineTuneLib.slices.stack import SliceStack, sparser_axis
from SAMFineTuneLib.volumes import Labelmap, Volume, labelmap_onto, read_labelmap
from SAMFineTuneLib.volumes.dicom_frame_of_reference import other_frame_of_reference


def require_drawn(
    drawn: Sequence[Example], volumes: Sequence[Path], warn: Callable[[str], None]
) -> None:
    """Looks whether what is drawn can be used, before anything is computed.

    Args:
        drawn: examples.
        volumes: to be segmented.
        warn: told where not one of the examples is of one of the volumes.

    Raises:
        InputError: a segmentation that is not there.
    """
    read = {volume.resolve() for volume in volumes}
    of_these = [each for each in drawn if each.volume.resolve() in read]
    for each in of_these:
        if not each.segmentation.exists():
            raise InputError(
                f"there is no segmentation {each.segmentation}",
                "check the name of the file",
                code="no_such_file",
            )
    if drawn and not of_these:
        warn("none of the examples is of a volume that is segmented: nothing is known as drawn")


def known_structures(
    drawn: Sequence[Example],
    path: Path,
    volume: Volume,
    names: Mapping[int, str],
    axis: str,
    warn: Callable[[str], None] = lambda text: None,
) -> list[KnownStructure]:
    """What is known of the model's structures in one volume.

    A fine-tune may take it that a structure ends somewhere beyond its last drawn slice (`empty`
    "auto"); here that is for the model to say, unless the user has said it.

    Args:
        drawn: examples; those of other volumes count for nothing.
        path: of the volume.
        volume: the same, read.
        names: the model's labels and their names, "" where they have none.
        axis: along which the model cuts the volume.
        warn: told what cannot help, and why.

    Raises:
        InputError: a segmentation that cannot be read or does not lie over the volume; slices that
            it has not, or that are called empty and are not.
    """
    found: dict[tuple[int, int], KnownStructure] = {}
    for example in drawn:
        if example.volume.resolve() != path.resolve():
            continue
        labelmap, labels = _of_model(example, volume, names, warn)
        along = (sparser_axis(labelmap, axis) or axis) if example.axis == "auto" else example.axis
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
    example: Example, volume: Volume, names: Mapping[int, str], warn: Callable[[str], None]
) -> tuple[Labelmap, list[int]]:
    """The example's labels that the model knows, on the volume's grid, and which these are.

    A label that the example lists may have no voxel: then it says where the structure is not.
    """
    labelmap = read_labelmap(
        example.segmentation,
        empty_ok=True,
        over=volume.geometry,
        wanted=None if example.labels == "all" else example.labels,
    )
    strange = other_frame_of_reference(labelmap, example.segmentation, example.volume)
    for remark in (*labelmap.remarks, *strange):
        warn(remark)
    if labelmap.labels:
        labelmap = labelmap_onto(labelmap, volume.geometry)
    else:
        nothing = np.zeros(volume.array.shape, labelmap.array.dtype)
        labelmap = replace(labelmap, array=nothing, geometry=volume.geometry)
    asked = labelmap.labels if example.labels == "all" else sorted(example.labels)
    known = [label for label in asked if label in names]
    _warn_of_labels(example, labelmap, known, names, warn)
    kept = np.where(np.isin(labelmap.array, known), labelmap.array, 0)
    return replace(labelmap, array=kept), known


def _warn_of_labels(
    example: Example,
    labelmap: Labelmap,
    known: Sequence[int],
    names: Mapping[int, str],
    warn: Callable[[str], None],
) -> None:
    file = example.segmentation.name
    asked = labelmap.labels if example.labels == "all" else example.labels
    unknown = [label for label in labelmap.labels if label in asked and label not in names]
    if unknown:
        others = ", ".join(str(label) for label in unknown)
        warn(f"the model does not know label {others} of {file}: what was drawn of it is left out")
    elif not known:
        warn(f"{file} shows none of the model's structures: nothing is known as drawn")
    unsaid = [label for label in names if label not in known]
    if unsaid and example.labels == "all" and _tells_of_slices(example):
        others = ", ".join(f"{label} {names[label]}".strip() for label in unsaid)
        warn(
            f"what was said of empty and complete slices does not hold for {others}, of which "
            f"{file} shows nothing; where it does, list the labels in a file of examples"
        )
    for label in known:
        own, there = names[label], labelmap.names.get(label, "")
        if own and there and own.casefold() != there.casefold():
            warn(f"label {label} is called {there} in {file} and {own} in the model")


def _tells_of_slices(example: Example) -> bool:
    """Whether anything was said of slices by their numbers."""
    listed = (example.labelled, example.empty, example.complete, example.known_empty)
    return example.extent is not None or any(isinstance(each, list) and each for each in listed)


def _drawings(
    example: Example, labelmap: Labelmap, labels: list[int], axis: str
) -> list[tuple[int, Drawing]]:
    if not labels:
        return []
    stack = SliceStack.of(labelmap, axis)
    known = known_labels(
        stack,
        labels,
        example.labelled,
        "none" if example.empty == "auto" else example.empty,
        example.complete,
        example.unfinished,
        example.known_empty,
        example.extent,
    )
    return [(label, Drawing(stack, known[:, column])) for column, label in enumerate(labels)]
