"""What a user should know of the examples before a fine-tune learns from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from SAMFineTuneLib.examples.example_labels import Label
from SAMFineTuneLib.examples.opened_example import OpenedExample
from SAMFineTuneLib.examples.training_set import LabelledSlice


def warnings_of_examples(
    opened: Sequence[OpenedExample],
    numbers: Sequence[Mapping[int, int]],
    labels: Sequence[Label],
    slices: Sequence[LabelledSlice],
) -> list[str]:
    """All warnings, one sentence each.

    Args:
        opened: the examples.
        numbers: for each of them, number in its segmentation -> number of the structure.
        labels: all structures of the fine-tune.
        slices: all slices to learn from.
    """
    found = [
        *_structures_not_shown(opened, numbers, labels),
        *(warning for each in opened for warning in each.warnings),
        *_labels_on_no_slice(labels, slices),
        *_no_empty_slice(slices),
    ]
    # The frames of a volume all have the same remarks.
    return list(dict.fromkeys(found))


def _structures_not_shown(
    opened: Sequence[OpenedExample], numbers: Sequence[Mapping[int, int]], labels: Sequence[Label]
) -> list[str]:
    """For each example that shows no structure, or only some of those that it makes a claim on."""
    warnings = []
    for each, own in zip(opened, numbers, strict=True):
        example = each.example
        file = example.segmentation.name
        others = [label for label in labels if label.value not in own.values()]
        if not each.present:
            warnings.append(
                f"nothing is labelled in {file}: {len(each.slices)} slices of "
                f"{example.volume.name} are learnt from as empty"
            )
        elif example.labels == "all" and others and example.slice_knowledge.states_slices:
            names = ", ".join(f"{label.value} {label.name}".strip() for label in others)
            warnings.append(
                f"what was said of empty and complete slices does not hold for {names}, of which "
                f"{file} shows nothing; where it does, list the labels in a file of examples"
            )
    return warnings


def _labels_on_no_slice(labels: Sequence[Label], slices: Sequence[LabelledSlice]) -> list[str]:
    shown = set().union(*(each.classes for each in slices))
    return [
        f"label {label.value} is on none of the slices to learn from; it will not be found"
        for class_number, label in enumerate(labels, start=1)
        if class_number not in shown
    ]


def _no_empty_slice(slices: Sequence[LabelledSlice]) -> list[str]:
    if not all(each.is_labelled for each in slices):
        return []
    return [
        "no slice is known to be empty; the model may see the structures where they are not "
        "(say on which slices they begin and end, or list empty slices)"
    ]
