"""Slices that a user has drawn, to what an apply knows of a volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.prediction.known_structure import KnownStructure
from SAMFineTuneLib.slices.labelled import known_labels
from SAMFineTuneLib.slices.stack import SliceStack, suggest_axis
from SAMFineTuneLib.volumes import Labelmap, Volume, labelmap_onto, read_labelmap


def known_structures(
    drawn: Sequence[Example],
    path: Path,
    volume: Volume,
    axis: str,
    warn: Callable[[str], None] = lambda text: None,
) -> list[KnownStructure]:
    """What is known of the structures of one volume.

    A fine-tune may take it that a structure ends somewhere beyond its last drawn slice (`empty`
    "auto"); here that is for the model to say, unless the user has said it.

    Args:
        drawn: examples; those of other volumes count for nothing.
        path: of the volume.
        volume: the same, read.
        axis: along which the model cuts it.
        warn: told which segmentations cannot help, and why.

    Raises:
        InputError: a segmentation that cannot be read or does not lie over the volume; slices that
            it has not, or that are called empty and are not.
    """
    found: dict[int, KnownStructure] = {}
    for example in drawn:
        if example.volume.resolve() != path.resolve():
            continue
        labelmap = _chosen(
            labelmap_onto(read_labelmap(example.segmentation), volume.geometry), example
        )
        along = suggest_axis(labelmap) if example.axis == "auto" else example.axis
        if along != axis:
            warn(
                f"{example.segmentation.name} was drawn on {along} slices, and the model looks at "
                f"{axis} ones: what was drawn there does not guide it"
            )
            continue
        for each in _structures(example, labelmap, axis):
            before = found.get(each.label)
            found[each.label] = each if before is None else before.joined_by(each)
    return list(found.values())


def _chosen(labelmap: Labelmap, example: Example) -> Labelmap:
    if example.labels == "all":
        return labelmap
    wanted = np.isin(labelmap.array, example.labels)
    return replace(labelmap, array=np.where(wanted, labelmap.array, 0))


def _structures(example: Example, labelmap: Labelmap, axis: str) -> list[KnownStructure]:
    stack = SliceStack.of(labelmap, axis)
    labels = labelmap.labels
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
    return [KnownStructure(label, stack, known[:, n]) for n, label in enumerate(labels)]
