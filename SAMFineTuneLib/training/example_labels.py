"""The labels of several examples to one list of structures with one number each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from SAMFineTuneLib.volumes.label_matching import NamedLabel, match_labels
from SAMFineTuneLib.volumes.labelmap import Colour


@dataclass(frozen=True)
class Label:
    """A structure to segment: its number in the results, and what the user says it is."""

    value: int
    name: str = ""
    colour: Colour | None = None
    terminology: str = ""


class LabelsOfExample(NamedTuple):
    """What the segmentation of one example tells of its labels, in its own numbers.

    Attributes:
        file: name of the segmentation.
        chosen: numbers of those to learn.
        told: all of them, those of no voxel included.
        colours: number -> colour.
    """

    file: str
    chosen: Sequence[int]
    told: Sequence[NamedLabel]
    colours: Mapping[int, Colour]


class NumberedLabels(NamedTuple):
    """The structures of a fine-tune.

    Attributes:
        labels: all that are learnt, by ascending number.
        numbers: for each example, number in its segmentation -> number of the structure.
        remarks: what the user should know, one sentence each.
    """

    labels: list[Label]
    numbers: list[dict[int, int]]
    remarks: list[str]


def number_labels(
    examples: Sequence[LabelsOfExample],
    names: Mapping[int, str],
    tuned: Sequence[Label] = (),
    model: str = "",
) -> NumberedLabels:
    """Matches the labels of all examples by `match_labels`.

    A structure keeps the number that it has in the model that is gone on from, else in the first
    example that has it; where another structure has that number already, it gets a free one.

    Args:
        examples: in the order in which they were given.
        names: number of a structure -> name that the user gives it.
        tuned: the labels of the model that is gone on from.
        model: how messages name that model.

    Raises:
        InputError: a label that may be this structure or that one.
    """
    found: dict[int, Label] = {each.value: each for each in tuned}
    known = [NamedLabel(each.value, each.name, each.terminology) for each in tuned]
    named: list[NamedLabel] = []
    learnt: set[int] = set()
    given = [each.value for example in examples for each in example.told]
    free = max([0, *found, *names, *given, *(n for each in examples for n in each.chosen)]) + 1
    numbers: list[dict[int, int]] = []
    remarks: list[str] = []
    before = model
    for example in examples:
        told = {value: NamedLabel(value) for value in example.chosen}
        told |= {each.value: each for each in example.told}
        matching = match_labels(
            [*known, *_of_user(names, known)],
            list(told.values()),
            example.file,
            before or "the examples before it",
            named=named,
            said=names.keys(),
            chosen=example.chosen,
        )
        matching.require(example.chosen)
        remarks += matching.remarks
        own = dict(matching.numbers)
        in_use = {*(each.value for each in known), *(own.get(each) for each in example.chosen)}
        for value in sorted(matching.new & {*example.chosen}):
            own[value] = value
            if value in in_use:
                own[value], free = free, free + 1
                remarks.append(_renumbered(told[value], own[value], example.file))
        for value in example.chosen:
            number = own[value]
            learnt.add(number)
            found[number] = _completed(found.get(number), number, told[value], example.colours)
            known.append(told[value]._replace(value=number))
        # Many examples tell the same of the same labels.
        known = list(dict.fromkeys(known))
        others = [each for each in example.told if each.value not in example.chosen]
        named += [each for each in others if each.value not in own]
        taken = {each.value for each in known}
        named = [each for each in dict.fromkeys(named) if each.value not in taken]
        numbers.append({value: own[value] for value in example.chosen})
        before = f"{model} or the examples before it" if model else ""
    labels = [_named_by_user(found[number], names) for number in sorted(learnt)]
    return NumberedLabels(labels, numbers, remarks)


def _of_user(names: Mapping[int, str], known: Sequence[NamedLabel]) -> list[NamedLabel]:
    """The user's names of the structures there are so far."""
    return [
        NamedLabel(value, names[value])
        for value in dict.fromkeys(each.value for each in known)
        if value in names
    ]


def _completed(
    label: Label | None, number: int, told: NamedLabel, colours: Mapping[int, Colour]
) -> Label:
    """The label with what the first file tells that tells it."""
    label = label or Label(number)
    # A name that a program made up gives way to one that says something.
    says_more = bool(told.own_name) and not NamedLabel(number, label.name).own_name
    return Label(
        number,
        told.name if says_more else label.name or told.name,
        label.colour or colours.get(told.value),
        label.terminology or told.terminology,
    )


def _named_by_user(label: Label, names: Mapping[int, str]) -> Label:
    name = names.get(label.value) or label.name
    return Label(label.value, name, label.colour, label.terminology)


def _renumbered(label: NamedLabel, number: int, file: str) -> str:
    return (
        f"label {label.value} of {file}, {label.name or 'without a name'}, is another structure "
        f"than the one that has this number already: it gets number {number}"
    )
