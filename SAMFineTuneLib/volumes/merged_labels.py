"""Labels that count as one structure, as when the parts of an organ are learnt as a whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.labelmap import Labelmap, smallest_label_type

# New label -> the labels that it is made of.
Merges = Mapping[int, Sequence[int] | Literal["all"]]


def labels_to_read(wanted: Collection[int] | None, merges: Merges) -> Collection[int] | None:
    """The labels of a file that are needed for the wanted ones after merging; None for all."""
    if wanted is None or any(parts == "all" for parts in merges.values()):
        return None
    parts = {each for label in wanted for each in merges.get(label, [label])}
    return sorted(each for each in parts if isinstance(each, int))


def merged(labelmap: Labelmap, merges: Merges, file: str) -> Labelmap:
    """The labelmap with several labels as one.

    The new label has the names of its parts, with + between them, and the colour of the first part
    that has one; all labels together have no name.

    Args:
        labelmap: the segmentation.
        merges: new label -> its parts. Parts that do not occur are left out.
        file: name of the segmentation, for messages.

    Raises:
        InputError: a new label that another structure of the file has already.
    """
    if not merges:
        return labelmap
    array = labelmap.array.astype(smallest_label_type(max([0, *labelmap.labels, *merges])))
    names, colours = dict(labelmap.names), dict(labelmap.colours)
    terms = dict(labelmap.terminologies)
    parts_of = {new: _parts(parts, labelmap) for new, parts in merges.items()}
    gone = {part for parts in parts_of.values() for part in parts}
    for new, parts in parts_of.items():
        if new in {*labelmap.labels, *labelmap.names} - gone:
            raise InputError(
                f"label {new} of {file} is a structure already, so {_listed(parts)} cannot "
                f"become label {new}",
                "Choose a number that no label has, or one of the labels that are merged",
                code="label_taken",
            )
        array[np.isin(labelmap.array, parts)] = new
    for part in gone:
        for told in (names, colours, terms):
            told.pop(part, None)
    for new, parts in parts_of.items():
        own = [labelmap.names[part] for part in parts if part in labelmap.names]
        if own and merges[new] != "all":
            names[new] = " + ".join(dict.fromkeys(own))
        colour = next((labelmap.colours[each] for each in parts if each in labelmap.colours), None)
        if colour is not None:
            colours[new] = colour
    return replace(labelmap, array=array, names=names, colours=colours, terminologies=terms)


def _parts(parts: Sequence[int] | Literal["all"], labelmap: Labelmap) -> list[int]:
    if parts == "all":
        return sorted({*labelmap.labels, *labelmap.names})
    return sorted(parts)


def _listed(parts: Sequence[int]) -> str:
    return " + ".join(map(str, parts))
