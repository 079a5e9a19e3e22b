"""Finds the labels of two files that are the same structure: by name, coded term, then number.

The number of a segment depends on the order in which segments were added; its name says what it is.
So:

* Names are compared first, without regard to case and spaces. Names that a program made up
  ("Segment_1", "Label 3", "5") are ignored.
* Coded terms (terminology) are compared second, because names may be in two languages. They also
  distinguish segments of the same name, such as left and right. The term "Tissue", which Slicer
  gives to every new segment, is ignored.
* Numbers decide if a name is missing on one side, as in files that hold no names.
* Contradictions are reported and not guessed at: one number with two names, neither of which occurs
  elsewhere, may be one structure in two languages, or two structures. Two colours are two
  structures: each mask in colour numbers those that it shows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes.coded_term import CodedTerm, coded_term
from SAMFineTuneLib.volumes.labelmap import Labelmap, smallest_label_type

_MADE_UP = re.compile(r"(segment|label|class|region|structure|object|roi|mask)?[\s_-]*\d*")

# The name of a label of a picture, see `pictures.mask`.
_COLOUR = re.compile(r"#[0-9a-f]{6}([0-9a-f]{6})?")


class NamedLabel(NamedTuple):
    """A label of a file or a model: its number, its name, and its terminology entry."""

    value: int
    name: str = ""
    terminology: str = ""

    @property
    def own_name(self) -> str:
        """The name to compare by; "" if it is missing or made up by a program."""
        folded = " ".join(self.name.split()).casefold()
        return "" if _MADE_UP.fullmatch(folded) else folded

    @property
    def is_colour(self) -> bool:
        """Whether it is named by its colour; its number then means nothing to the user."""
        return bool(_COLOUR.fullmatch(self.own_name))

    @property
    def term(self) -> CodedTerm | None:
        """The term to compare by; None if it is missing or says nothing."""
        return coded_term(self.terminology)


@dataclass(frozen=True)
class Matching:
    """Which known label each label of a file is.

    Attributes:
        numbers: number in the file -> number of the known label that is the same structure.
        new: numbers in the file of structures that are none of the known ones; a known label may
            have the same number.
        contradictions: number in the file -> error that says why its structure cannot be decided.
        remarks: what the user should know, one sentence each.
    """

    numbers: dict[int, int]
    new: frozenset[int]
    contradictions: dict[int, InputError]
    remarks: tuple[str, ...] = ()

    def require(self, values: Iterable[int]) -> None:
        """Raises the error of the first of these numbers of the file that cannot be matched.

        Raises:
            InputError: it names both labels.
        """
        for value in values:
            if value in self.contradictions:
                raise self.contradictions[value]


def named_labels(labelmap: Labelmap, stated: Mapping[int, str] | None = None) -> list[NamedLabel]:
    """The labels of a segmentation, including named labels without a voxel.

    Args:
        labelmap: the segmentation.
        stated: number -> name by the user, which replaces the file's name and terminology.
    """
    stated = stated or {}
    values = {*labelmap.labels, *labelmap.names, *labelmap.terminologies, *stated} - {0}
    return [
        NamedLabel(
            value,
            stated.get(value) or labelmap.names.get(value, ""),
            "" if stated.get(value) else labelmap.terminologies.get(value, ""),
        )
        for value in sorted(values)
    ]


def match_labels(
    known: Sequence[NamedLabel],
    found: Sequence[NamedLabel],
    file: str,
    known_in: str,
    *,
    named: Sequence[NamedLabel] = (),
    stated: Collection[int] = (),
    chosen: Collection[int] | None = None,
) -> Matching:
    """Finds for each label of a file the known one that is the same structure.

    Args:
        known: labels that are in use; one number may have several names.
        found: the labels of the file.
        file: how messages name the file.
        known_in: how messages name the place of the known labels, such as "the model".
        named: further labels whose names are known, but whose numbers other labels may take.
        stated: numbers that mean the same structure everywhere, as the user stated, unless names
            say otherwise.
        chosen: numbers of the file that are asked for; None for all. It is a contradiction only if
            two of these are the same structure.
    """
    asked = [each for each in found if chosen is None or each.value in chosen]
    numbers: dict[int, int] = {}
    contradictions: dict[int, InputError] = {}
    remarks: list[str] = []
    for each in found:
        values = _of_one_name(each, [*known, *named])
        if len(values) == 1:
            numbers[each.value] = values.pop()
        elif each.value in stated:
            continue
        elif values:
            contradictions[each.value] = _ambiguous(each, file, known_in)
        elif other := next((one for one in known if _same_name(one, each)), None):
            contradictions[each.value] = _other_term(each, other, file, known_in)
    for each in _of_no_name_there(found, numbers, contradictions):
        same = [one for one in [*known, *named] if _same_term(one, each)]
        values = {one.value for one in same} - set(numbers.values())
        if len(values) == 1:
            numbers[each.value] = values.pop()
            other = next(one for one in same if one.value == numbers[each.value])
            if each.own_name and other.own_name:
                remarks.append(_by_term(each, other, file, known_in))
    new: set[int] = set()
    holders = {numbers[each.value]: each for each in found if each.value in numbers}
    for each in found:
        if each.value in numbers or each.value in contradictions:
            continue
        others = [one for one in known if one.value == each.value]
        if not others:
            new.add(each.value)
        elif all(_differ(one, each) for one in others) and each.value not in stated:
            if each.value in holders or all(_both_colours(one, each) for one in others):
                new.add(each.value)
            else:
                contradictions[each.value] = _two_names(each, others[0], file, known_in)
        elif each.value in holders:
            contradictions[each.value] = _unnamed(each, holders[each.value], file, known_in)
        else:
            numbers[each.value] = each.value
    firsts: dict[int, NamedLabel] = {}
    for each in asked:
        first = firsts.setdefault(numbers.get(each.value, -each.value), each)
        if first is not each:
            contradictions[each.value] = _twice(each, first, file)
    moved = [
        each
        for each in asked
        if numbers.get(each.value, each.value) != each.value and not each.is_colour
    ]
    if moved:
        remarks.append(_moved(moved, numbers, file, known_in))
    return Matching(numbers, frozenset(new), contradictions, tuple(remarks))


def renumbered(labelmap: Labelmap, numbers: Mapping[int, int]) -> Labelmap:
    """The segmentation with other numbers; labels that `numbers` does not name keep theirs."""
    present = [*labelmap.labels, *labelmap.names, *labelmap.colours, *labelmap.terminologies]
    to = {value: numbers.get(value, value) for value in present}
    if all(number == value for value, number in to.items()):
        return labelmap
    array = labelmap.array.astype(smallest_label_type(max(to.values())))
    for value in labelmap.labels:
        if to[value] != value:
            array[labelmap.array == value] = to[value]
    return replace(
        labelmap,
        array=array,
        names={to[value]: each for value, each in labelmap.names.items()},
        colours={to[value]: each for value, each in labelmap.colours.items()},
        terminologies={to[value]: each for value, each in labelmap.terminologies.items()},
    )


def _same_name(one: NamedLabel, other: NamedLabel) -> bool:
    return bool(one.own_name) and one.own_name == other.own_name


def _both_colours(one: NamedLabel, other: NamedLabel) -> bool:
    return one.is_colour and other.is_colour


def _same_term(one: NamedLabel, other: NamedLabel) -> bool:
    return one.term is not None and other.term is not None and one.term.is_same(other.term)


def _contrary_terms(one: NamedLabel, other: NamedLabel) -> bool:
    return one.term is not None and other.term is not None and one.term.contradicts(other.term)


def _differ(one: NamedLabel, other: NamedLabel) -> bool:
    """Whether two labels cannot be one structure, by their names and terms."""
    if one.own_name and other.own_name and one.own_name != other.own_name:
        return True
    return _contrary_terms(one, other)


def _of_one_name(label: NamedLabel, known: Sequence[NamedLabel]) -> set[int]:
    """The numbers of known labels with this name; of several, those of the same term or number."""
    same = [one for one in known if _same_name(one, label) and not _contrary_terms(one, label)]
    values = {one.value for one in same}
    if len(values) > 1:
        values = {one.value for one in same if _same_term(one, label)} or values
    return {label.value} if label.value in values else values


def _of_no_name_there(
    found: Sequence[NamedLabel], numbers: Mapping[int, int], contrary: Mapping[int, InputError]
) -> list[NamedLabel]:
    """Labels that were not matched by name, and whose term no other such label has."""
    left = [each for each in found if each.value not in numbers and each.value not in contrary]
    counts = Counter(each.term for each in left if each.term is not None)
    return [each for each in left if each.term is not None and counts[each.term] == 1]


def _called(label: NamedLabel) -> str:
    """The name for messages; the term if there is no name."""
    if label.own_name or label.term is None:
        return " ".join(label.name.split()) or f"label {label.value}"
    return label.term.text


def _two_names(label: NamedLabel, other: NamedLabel, file: str, known_in: str) -> InputError:
    number, known = label.value, _called(other)
    return InputError(
        f"label {number} is {_called(label)} in {file} and {known} in {known_in}",
        f"If they are one structure, give both the same name, or state that label {number} is "
        f"{known}; if not, use a number that is free",
        code="label_contradiction",
        label=number,
        name=known,
    )


def _other_term(label: NamedLabel, other: NamedLabel, file: str, known_in: str) -> InputError:
    there, here = (each.term.text if each.term else "" for each in (other, label))
    return InputError(
        f"{_called(label)}, label {label.value}, is coded as {here} in {file} and as {there} in "
        f"{known_in}",
        "Give different structures different names, or one structure the same terminology; or give "
        f"label {label.value} another name: then its number decides",
        code="label_contradiction",
        label=label.value,
    )


def _ambiguous(label: NamedLabel, file: str, known_in: str) -> InputError:
    return InputError(
        f"label {label.value} of {file} is called {_called(label)}, and so are several labels of "
        f"{known_in} with other numbers",
        "Give each structure a name of its own",
        code="label_contradiction",
    )


def _unnamed(label: NamedLabel, holder: NamedLabel, file: str, known_in: str) -> InputError:
    return InputError(
        f"label {label.value} of {file} cannot be identified by its number: the structure with "
        f"that number in {known_in} is label {holder.value} of {file}, {_called(holder)}",
        "Name it in the file, or in the list of examples (label_names)",
        code="label_contradiction",
    )


def _twice(label: NamedLabel, first: NamedLabel, file: str) -> InputError:
    low, high = sorted((label.value, first.value))
    return InputError(
        f"labels {low} and {high} of {file} are both {_called(label)}",
        "Give each structure a name of its own, merge the two, or choose one of them",
        code="label_contradiction",
        labels=f"{low} or {high}",
    )


def _by_term(label: NamedLabel, other: NamedLabel, file: str, known_in: str) -> str:
    term = other.term.text if other.term else ""
    return (
        f"{_called(label)} in {file} and {_called(other)} in {known_in} are taken for one "
        f"structure, since both are coded as {term}"
    )


def _moved(
    labels: Sequence[NamedLabel], numbers: Mapping[int, int], file: str, known_in: str
) -> str:
    told = ", ".join(f"{each.value} ({_called(each)}) is {numbers[each.value]}" for each in labels)
    return (
        f"{file} has other label numbers than {known_in}; labels were matched by their names: "
        f"{told}"
    )
