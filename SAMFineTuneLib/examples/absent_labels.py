"""Whether a listed label without a voxel is absent, or a mistake of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.opened_example import OpenedExample


def refuse_absent_labels(
    opened: Sequence[OpenedExample], numbers: Sequence[Mapping[int, int]]
) -> None:
    """Refuses a listed label without a voxel, unless the structure is stated to be absent.

    It is absent where the label is known on some slice of its example, and another example shows
    the structure.

    Args:
        opened: the examples.
        numbers: for each of them, number in its segmentation -> number of the structure.

    Raises:
        InputError: a label that does not occur in its segmentation and is not stated to be absent.
    """
    shown = {
        own[value]
        for each, own in zip(opened, numbers, strict=True)
        for value in each.labels or []
        if value in each.present
    }
    # A label need not occur in every frame of a segmentation.
    in_other_frames = {(id(each.example), label) for each in opened for label in each.present}
    for each, own in zip(opened, numbers, strict=True):
        for column, label in enumerate(each.labels or []):
            stated = any(one.known[column] for one in each.slices)
            is_shown = own[label] in shown
            if (id(each.example), label) in in_other_frames:
                continue
            if label not in each.present and not (is_shown and stated):
                raise _absent(label, each, is_shown)


def _absent(label: int, opened: OpenedExample, shown_elsewhere: bool) -> InputError:
    file = opened.example.segmentation.name
    has = ", ".join(map(str, opened.present)) or "no label"
    message = f"label {label} does not occur in {file}, which has {has}"
    if shown_elsewhere:
        remedy = "say on which slices it is absent (complete or empty ones, or the extent)"
        return InputError(message, remedy, code="label_absent")
    return InputError(message, "choose among those", code="label_absent", absent=label)
