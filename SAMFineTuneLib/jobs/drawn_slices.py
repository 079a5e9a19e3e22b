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
        labelmap = _of_model(example, volume, names, warn)
        along = (sparser_axis(labelmap, axis) or axis) if example.axis == "auto" else example.axis
        if along != axis and labelmap.labels:
            warn(
                f"{example.segmentation.name} was drawn on {along} slices, and the model looks at "
                f"{axis} ones: what was drawn is kept, but does not help between its slices"
            )
        for label, drawing in _drawings(example, labelmap, along):
            key = (label, drawing.labels.axis)
            earlier = found[key].drawings if key in found else ()
            found[key] = KnownStructure(label, (*earlier, drawing))
    return list(found.values())


def _of_model(
    example: Example, volume: Volume, names: Mapping[int, str], warn: Callable[[str], None]
) -> Labelmap:
    """The example's labels that the model knows, on the volume's grid."""
    labelmap = read_labelmap(example.segmentation, empty_ok=True)
    if labelmap.labels:
        labelmap = labelmap_onto(labelmap, volume.geometry)
    asked = labelmap.labels if example.labels == "all" else example.labels
    wanted = [label for label in labelmap.labels if label in asked]
    known = [label for label in wanted if label in names]
    file = example.segmentation.name
    if len(known) < len(wanted):
        others = ", ".join(str(label) for label in wanted if label not in names)
        warn(f"the model does not know label {others} of {file}: what was drawn of it is left out")
    elif not known:
        warn(f"{file} shows none of the model's structures: nothing is known as drawn")
    for label in known:
        own, there = names[label], labelmap.names.get(label, "")
        if own and there and own.casefold() != there.casefold():
            warn(f"label {label} is called {there} in {file} and {own} in the model")
    return replace(labelmap, array=np.where(np.isin(labelmap.array, known), labelmap.array, 0))


def _drawings(example: Example, labelmap: Labelmap, axis: str) -> list[tuple[int, Drawing]]:
    labels = labelmap.labels
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
