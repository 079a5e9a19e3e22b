"""Slices that were accepted in a correction become examples to learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction import Correction
from SAMFineTunePanel.examples.example_slices import chosenSegmentIDs
from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment
from SAMFineTunePanel.texts.counted_text import counted

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic


def addAcceptedSlices(logic: SAMFineTuneLogic, correction: Correction) -> str:
    """Have the slices that were accepted learnt from; in words, which.

    A pair of volume and segmentation that is no example yet becomes one with the corrected segment alone, in
    which nothing but the accepted slices counts: the others hold what a model has found. Where the pair is an
    example, the accepted slices are added to what counts there.

    Raises:
        ValueError: nothing is accepted, or the example is cut in another orientation.
    """
    accepted = sorted(correction.session.accepted)
    if not accepted:
        raise ValueError(_("Accept a slice first: accepted slices are learnt from."))
    segment = correction.session.segment
    index = _indexOf(logic, segment, correction.session.frame)
    if index is None:
        index = len(logic.getParameterNode().examples)
        _addExample(logic, correction, accepted)
    else:
        _addSegment(logic, index, segment)
    _count(logic, index, accepted, segment.segmentID)
    return counted(
        len(accepted),
        _("1 slice is learnt from: {numbers}."),
        _("{count} slices are learnt from: {numbers}."),
        numbers=", ".join(map(str, accepted)),
    )


def _indexOf(logic: SAMFineTuneLogic, segment: CorrectedSegment, frame: str) -> int | None:
    """Index of the example with this volume, at this frame, and this segmentation; None where there is none."""
    for index, each in enumerate(logic.getParameterNode().examples):
        isPair = each.volume is segment.volume and each.segmentation is segment.segmentation
        if isPair and (each.frame or frame) == frame:
            return index
    return None


def _addExample(logic: SAMFineTuneLogic, correction: Correction, accepted: list[int]) -> None:
    """Make an example of the corrected segment alone, in which only accepted slices count."""
    segment = correction.session.segment
    example = logic.addExample(
        segment.volume,
        segment.segmentation,
        [segment.segmentID],
        segment.orientation,
        channels=correction.session.channels,
    )
    painted = logic.exampleSlices(example).found
    example.unfinished = [number for number in painted if number not in accepted]


def _addSegment(logic: SAMFineTuneLogic, index: int, segment: CorrectedSegment) -> None:
    """Have an example teach the corrected segment, too."""
    example = logic.getParameterNode().examples[index]
    orientation = logic.exampleSlices(example).orientation
    if orientation != segment.orientation:
        raise ValueError(
            _("{volume} is an example of {other} slices already; {orientation} ones cannot be added to it.").format(
                volume=segment.volume.GetName(), other=orientation, orientation=segment.orientation
            )
        )
    if example.segmentIDs and segment.segmentID not in example.segmentIDs:
        example.segmentIDs = [*example.segmentIDs, segment.segmentID]


def _count(logic: SAMFineTuneLogic, index: int, accepted: list[int], segmentID: str) -> None:
    """Have accepted slices count; one without a voxel is known to be empty, unless other structures may be there."""
    example = logic.getParameterNode().examples[index]
    painted = set(logic.exampleSlices(example).found)
    example.unfinished = [number for number in example.unfinished if number not in accepted]
    if chosenSegmentIDs(example) == [segmentID]:
        for number in accepted:
            if number not in painted:
                logic.markEmpty(index, number)
