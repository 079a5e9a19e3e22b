"""Gives the labels of a prediction the numbers that its reference uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from SAMFineTuneLib.volumes import Labelmap
from SAMFineTuneLib.volumes.label_matching import (
    NamedLabel,
    match_labels,
    named_labels,
    renumbered,
)


class RenumberedPrediction(NamedTuple):
    """A prediction with the reference's numbers, and remarks for the user on what was changed."""

    labelmap: Labelmap
    remarks: tuple[str, ...]


def in_numbers_of_reference(
    prediction: Labelmap,
    reference: Labelmap,
    labels: Sequence[int] | None,
    stated: Collection[int],
    prediction_file: str,
    reference_file: str,
) -> RenumberedPrediction:
    """The prediction, its labels renumbered so that structures of one name have one number.

    See `match_labels`.

    Args:
        prediction: the segmentation to be measured.
        reference: the truth.
        labels: the reference's numbers that are to be measured; None for all.
        stated: numbers that mean the same structure in both, by the user's word.
        prediction_file: how messages name the prediction.
        reference_file: how messages name the reference.

    Raises:
        InputError: it cannot be decided which structure a label to be measured is.
    """
    present, wanted = set(prediction.labels), {*reference.labels, *(labels or ())}
    told = named_labels(reference)
    known = [each for each in told if each.value in wanted]
    found = [each for each in named_labels(prediction) if each.value in present]
    matching = match_labels(
        known,
        found,
        prediction_file,
        reference_file,
        named=[each for each in told if each.value not in wanted],
        stated=stated,
    )
    asked = present if labels is None else _concerned(found, known, {*labels}, matching.numbers)
    matching.require(sorted(asked))
    held = {*wanted, *(each.value for each in told)}
    numbers, remarks, free = dict(matching.numbers), [*matching.remarks], max({0} | held | present)
    for each in found:
        if each.value in matching.new & held:
            free += 1
            numbers[each.value] = free
            remarks.append(
                f"label {each.value} of {prediction_file}, {each.name}, is another structure than "
                f"that of {reference_file}: it is measured as label {free}"
            )
    names = {value: name for value, name in prediction.names.items() if value in present}
    return RenumberedPrediction(
        renumbered(replace(prediction, names=names), numbers), tuple(remarks)
    )


def _concerned(
    found: Sequence[NamedLabel],
    known: Sequence[NamedLabel],
    labels: set[int],
    numbers: Mapping[int, int],
) -> set[int]:
    """Labels of the prediction that may be one of those to be measured."""
    names = {each.own_name for each in known if each.value in labels} - {""}
    return {
        each.value
        for each in found
        if each.value in labels or numbers.get(each.value) in labels or each.own_name in names
    }
