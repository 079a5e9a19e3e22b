"""Corrections for scripts: nodes and coordinates in, what changed out, waiting in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction import Correction
from SAMFineTunePanel.correction.correction_session import READY
from SAMFineTunePanel.segment_editing.segment_edit import SegmentEdit, undoAll

_SLEEP_S = 0.002
# A worker that takes longer for a mask is taken not to answer.
_TIMEOUT_S = 600.0


@dataclass(frozen=True, eq=False)
class CorrectedSlices:
    """The result of a correction.

    Attributes:
        slices: their numbers.
        masks: slice → bool (rows, columns), as they were found.
        changedVoxels: how many the segment has gained or lost; 0 where the masks were not to be kept.
        remark: what the user should know of it.
        confidence: of the mask of one slice, from 0 to 1; None where it is not known.
    """

    slices: list[int]
    masks: dict[int, np.ndarray]
    changedVoxels: int
    remark: str
    confidence: float | None
    _edits: Sequence[SegmentEdit]

    def undo(self) -> None:
        """Take it back.

        Raises:
            ValueError: it was not kept, was taken back already, or the segment was edited since at the same place.
        """
        if not self._edits:
            raise ValueError(_("Nothing was kept that could be taken back."))
        undoAll(self._edits)


def correctSlice(
    correction: Correction,
    points: Iterable[Iterable[float]],
    labels: Iterable[Any] | None,
    box: Sequence[Iterable[float]] | None,
    number: int | None,
    accept: bool,
) -> CorrectedSlices:
    """Give prompts on one slice of a correction that was just opened, and keep the mask.

    Args:
        correction: of scripts.
        points: RAS of each.
        labels: for each point whether it is on the structure (True, 1) or beside it (False, 0); None: all are.
        box: RAS of two opposite corners.
        number: of the slice, on which all points and corners must lie; None for that of the first.
        accept: whether to write the mask into the segment.

    Raises:
        ValueError: what cannot be, or what ended the correction, in words.
    """
    signedPoints = _signedPoints(points, labels)
    if box is not None and len(box) != 2:
        raise ValueError(_("A box is two opposite corners."))
    if not signedPoints and box is None and number is None:
        raise ValueError(_("Give points, a box, or a slice to take the model's own mask of."))
    _wait(correction, lambda: correction.session.state == READY)
    if number is not None:
        correction.look(int(number))
    if box is not None:
        first, second = box
        correction.addBox(first, second, number=number)
        number = correction.session.number
    for ras, sign in signedPoints:
        correction.addPoint(ras, sign, number=number)
        # Points of one call are of one slice.
        number = correction.session.number
    _wait(correction, lambda: not correction.isWorking)
    if not correction.session.preview:
        raise ValueError(_("Without points and boxes there is a mask only where a tuned model finds the segment."))
    return _kept(correction, accept)


def _signedPoints(points: Iterable[Iterable[float]], labels: Iterable[Any] | None) -> list[tuple[np.ndarray, bool]]:
    """RAS of each point, and whether it is on the structure."""
    places = [np.asarray(list(each), float) for each in points]
    signs = [bool(each) for each in labels] if labels is not None else [True] * len(places)
    if len(signs) != len(places):
        raise ValueError(
            _("The numbers of points ({points}) and of labels ({labels}) differ; each point needs one.").format(
                points=len(places), labels=len(signs)
            )
        )
    return list(zip(places, signs, strict=True))


def propagate(correction: Correction, slices: int | None, between: bool) -> CorrectedSlices:
    """Propagate a segment from the slices on which it has voxels, in a correction that was just opened.

    Args:
        correction: of scripts.
        slices: how many to go beyond the first and the last of them at most; None as far as the structure goes.
        between: whether to fill what lies between them.

    Raises:
        ValueError: as `correctSlice`.
    """
    _wait(correction, lambda: correction.session.state == READY)
    correction.acceptPainted()
    correction.startPropagation(slices, between)
    try:
        _wait(correction, lambda: not correction.isPropagating)
    except KeyboardInterrupt:
        correction.stop()
        raise
    if not correction.session.propagated:
        return CorrectedSlices([], {}, 0, correction.status.text, None, ())
    return _kept(correction, accept=True)


def _kept(correction: Correction, accept: bool) -> CorrectedSlices:
    session = correction.session
    masks = {number: mask.copy() for number, mask in session.preview.items()}
    text, confidence = correction.status.text, None if session.propagated else session.current.confidence
    edits: list[SegmentEdit] = []
    if accept:
        correction.accept()
        edits, text = correction.edits, correction.status.text
    changed = sum(edit.changedVoxels for edit in edits)
    return CorrectedSlices(sorted(masks), masks, changed, text, confidence, edits)


def _wait(correction: Correction, isSo: Callable[[], bool]) -> None:
    """Wait while Slicer stays alive; what goes wrong meanwhile is raised."""
    until = time.monotonic() + _TIMEOUT_S
    while not isSo() or correction.status.problem:
        if correction.status.problem or not correction.session.isOpen:
            raise ValueError(correction.status.problem or _("The correction was closed."))
        if time.monotonic() > until:
            raise ValueError(_("The correction worker does not answer."))
        slicer.app.processEvents()
        time.sleep(_SLEEP_S)
