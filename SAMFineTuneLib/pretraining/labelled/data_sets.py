"""The labelled data sets: what is learnt from, and what is held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.listed_examples import Expected, ListSource, load_list
from SAMFineTuneLib.examples.training_set import LabelledSlice, TrainingSet
from SAMFineTuneLib.pretraining.labelled.plan import LabelledChoices
from SAMFineTuneLib.pretraining.listed_names import names_beside_the_list
from SAMFineTuneLib.slices.augmentation import SliceAugmentation
from SAMFineTuneLib.training.validation_split import split

# Slices of each data set that are measured on, at most, evenly spread.
_MOST_MEASURED = 200


@dataclass(frozen=True, eq=False)
class LearntSlice:
    """A slice to learn from, with the augmentation of its data set."""

    labelled: LabelledSlice
    augmentation: SliceAugmentation


@dataclass(frozen=True, eq=False)
class DataSets:
    """All data sets; only slices that show a structure.

    Attributes:
        learnt: slices to learn from, of all data sets.
        measured: for each data set that is measured on, its name and slices.
        remarks: what the user should know, one sentence each.
    """

    learnt: list[LearntSlice]
    measured: list[tuple[str, list[LabelledSlice]]]
    remarks: list[str]


def load_data_sets(
    choices: LabelledChoices,
    folder: Path,
    input_size: int,
    check: Callable[[], None],
    report: Callable[[int, int], None],
) -> DataSets:
    """Reads the lists, prepares their slices in a folder, and opens them.

    Args:
        choices: which lists.
        folder: for the prepared slices, a folder in it for each list.
        input_size: side of the square in pixels.
        check: called between images; may raise to stop.
        report: called with the number of images of a list that are read and of all.

    Raises:
        InputError: a list cannot be used, or none of its masks shows a label; or nothing can be
            held out.
    """

    def load(path: Path, number: int, kind: str) -> TrainingSet:
        source = ListSource(path, skip_unreadable=choices.skip_unreadable)
        with names_beside_the_list():
            return load_list(source, folder / f"{kind}{number}", {}, check, report, Expected())

    learnt: list[LearntSlice] = []
    measured: list[tuple[str, list[LabelledSlice]]] = []
    remarks: list[str] = []
    for number, path in enumerate(choices.lists):
        examples = load(path, number, "list")
        remarks += examples.warnings
        augmentation = SliceAugmentation(input_size, normalisation=examples.normalisation)
        positions: Sequence[int] = range(len(examples.slices))
        if not choices.validation_lists:
            parts = split(examples.slices, choices.seed)
            positions = parts.training
            measured.append((path.name, parts.labelled_held_out(examples.slices)))
        own = [examples.slices[each] for each in positions]
        learnt += [LearntSlice(each, augmentation) for each in own if each.is_labelled]
    for number, path in enumerate(choices.validation_lists):
        examples = load(path, number, "validation")
        remarks += examples.warnings
        measured.append((path.name, [each for each in examples.slices if each.is_labelled]))
    measured = [(name, _some(slices)) for name, slices in measured if slices]
    if not learnt or not measured:
        raise InputError(
            "the lists have too few labelled slices to hold some out",
            "Add images to the lists, or name others to measure on",
            code="nothing_held_out",
        )
    return DataSets(learnt, measured, remarks)


def _some(slices: list[LabelledSlice]) -> list[LabelledSlice]:
    """At most `_MOST_MEASURED` of them, evenly spread."""
    if len(slices) <= _MOST_MEASURED:
        return slices
    return [slices[each * len(slices) // _MOST_MEASURED] for each in range(_MOST_MEASURED)]
