"""Matching the labels of several examples: one list of structures with one number each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from SAMFineTuneLib.volumes.label_matching import NamedLabel, match_labels
from SAMFineTuneLib.volumes.labelmap import Colour


@dataclass(frozen=True)
class Label:
    """A structure to segment: its number in the results, its name, colour and terminology."""

    value: int
    name: str = ""
    colour: Colour | None = None
    terminology: str = ""


class LabelsOfExample(NamedTuple):
    """The labels of one example's segmentation, in its own numbers.

    Attributes:
        file: name of the segmentation.
        chosen: numbers of the labels to learn.
        in_file: all labels with their names, including those without a voxel.
        colours: number -> colour.
    """

    file: str
    chosen: Sequence[int]
    in_file: Sequence[NamedLabel]
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

    A structure keeps the number that it has in the model that the fine-tune starts from, otherwise
    that of the first example that has it. Where another structure has this number already, it gets
    a free one.

    Args:
        examples: in the order in which they were given.
        names: number of a structure -> name that the user gives it.
        tuned: the labels of the model that the fine-tune starts from.
        model: the name of that model in messages.

    Raises:
        InputError: a label that may be one of several structures.
    """
    found: dict[int, Label] = {each.value: each for each in tuned}
    known = [NamedLabel(each.value, each.name, each.terminology) for each in tuned]
    not_learnt: list[NamedLabel] = []
    learnt: set[int] = set()
    given = [each.value for example in examples for each in example.in_file]
    free = max([0, *found, *names, *given, *(n for each in examples for n in each.chosen)]) + 1
    numbers: list[dict[int, int]] = []
    remarks: list[str] = []
    before = model
    for example in examples:
        own_labels = {value: NamedLabel(value) for value in example.chosen}
        own_labels |= {each.value: each for each in example.in_file}
        matching = match_labels(
            [*known, *_of_user(names, known)],
            list(own_labels.values()),
            example.file,
            before or "the examples before it",
            named=not_learnt,
            stated=names.keys(),
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
                if not own_labels[value].is_colour:
                    remarks.append(_renumbered(own_labels[value], own[value], example.file))
        for value in example.chosen:
            number = own[value]
            learnt.add(number)
            label = own_labels[value]
            found[number] = _completed(found.get(number), number, label, example.colours)
            known.append(label._replace(value=number))
        # Many examples name the same labels alike.
        known = list(dict.fromkeys(known))
        others = [each for each in example.in_file if each.value not in example.chosen]
        not_learnt += [each for each in others if each.value not in own]
        taken = {each.value for each in known}
        not_learnt = [each for each in dict.fromkeys(not_learnt) if each.value not in taken]
        numbers.append({value: own[value] for value in example.chosen})
        before = f"{model} or the examples before it" if model else ""
    labels = [_named_by_user(found[number], names) for number in sorted(learnt)]
    return NumberedLabels(labels, numbers, remarks)


def _of_user(names: Mapping[int, str], known: Sequence[NamedLabel]) -> list[NamedLabel]:
    """The user's names of the structures that are known so far."""
    return [
        NamedLabel(value, names[value])
        for value in dict.fromkeys(each.value for each in known)
        if value in names
    ]


def _completed(
    label: Label | None, number: int, named: NamedLabel, colours: Mapping[int, Colour]
) -> Label:
    """The label, with the name, colour and terminology of this file where it has none so far."""
    label = label or Label(number)
    # A name that a user chose replaces one that a program generated.
    is_better = bool(named.own_name) and not NamedLabel(number, label.name).own_name
    return Label(
        number,
        named.name if is_better else label.name or named.name,
        label.colour or colours.get(named.value),
        label.terminology or named.terminology,
    )


def _named_by_user(label: Label, names: Mapping[int, str]) -> Label:
    name = names.get(label.value) or label.name
    return Label(label.value, name, label.colour, label.terminology)


def _renumbered(label: NamedLabel, number: int, file: str) -> str:
    return (
        f"label {label.value} of {file}, {label.name or 'without a name'}, is another structure "
        f"than the one that has this number already: it gets number {number}"
    )
