"""What is known of one slice of an example, in words."""

from __future__ import annotations

from dataclasses import dataclass

import qt
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.example_slices import ExampleSlices


@dataclass(frozen=True)
class SliceState:
    """One slice.

    Attributes:
        done: check state of "done": checked when all segments are learnt from here, partially when some are.
        isPaintedInPart: some of several segments are painted here.
        isEmpty: known to hold none of the segments.
        text: what it means for the fine-tune.
        problemWithDone: why it cannot be marked as done; "" when it can.
        problemWithEmpty: why it cannot be marked as empty; "" when it can.
    """

    done: object
    isPaintedInPart: bool
    isEmpty: bool
    text: str
    problemWithDone: str = ""
    problemWithEmpty: str = ""


def stateOf(slices: ExampleSlices, number: int) -> SliceState:
    """What is known of the slice with this number."""
    painted = [name for name, numbers in slices.bySegment.items() if number in numbers]
    if painted:
        return _paintedState(slices, number, painted)
    return _bareState(slices, number)


def _paintedState(slices: ExampleSlices, number: int, painted: list[str]) -> SliceState:
    others = [name for name in slices.bySegment if name not in painted]
    done, text = qt.Qt.Checked, _("Learnt from.")
    if number in slices.unfinished:
        done, text = qt.Qt.Unchecked, _("Not done: what is painted here is not learnt from.")
    elif others and number in slices.complete:
        text = _("Learnt from; not here: {names}.").format(names=", ".join(others))
    elif others:
        done = qt.Qt.PartiallyChecked
        text = _('Learnt from for {names} alone. Tick "done" when nothing else is here.').format(
            names=", ".join(painted)
        )
    return SliceState(
        done,
        bool(others),
        number in slices.empty,
        text,
        problemWithEmpty="" if number in slices.empty else _("Something is painted on this slice"),
    )


def _bareState(slices: ExampleSlices, number: int) -> SliceState:
    extent = slices.extent
    beyond = extent is not None and not extent[0] <= number <= extent[1]
    if number in slices.complete:
        return SliceState(qt.Qt.Checked, False, False, _("Done without paint: counts as empty."))
    if beyond:
        return SliceState(
            qt.Qt.Unchecked,
            False,
            True,
            _("Beyond the structure: known to be empty."),
            problemWithDone=_("Nothing is painted on this slice"),
            problemWithEmpty=_("It lies beyond where you said that the structure begins or ends"),
        )
    empty = number in slices.empty
    return SliceState(
        qt.Qt.Unchecked,
        False,
        empty,
        _("Known to be empty.") if empty else _("Not labelled."),
        problemWithDone=_('Nothing is painted on this slice. If the structure is not here, tick "empty".'),
    )
