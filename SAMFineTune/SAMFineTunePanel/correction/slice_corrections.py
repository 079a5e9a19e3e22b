"""The corrections of the slices of a volume: their prompts, and the search for their masks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction_worker import CorrectionWorker
from SAMFineTunePanel.correction.no_session import NoSessionError
from SAMFineTunePanel.correction.slice_correction import SliceCorrection
from SAMFineTunePanel.scene.structure_label import structureName
from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment
from SAMFineTunePanel.segment_editing.proposed_mask import ProposedMask, packed

if TYPE_CHECKING:
    from SAMFineTuneLib.interactive.protocol import Answer, Failure, Start

# Where prompts start from: the segment where it has voxels, else the model; or always one of these.
AUTO, SEGMENT, MODEL, NOTHING = "auto", "segment", "model", "nothing"
STARTS = (AUTO, SEGMENT, MODEL, NOTHING)


def requireStart(start: str) -> None:
    """Refuse what is no start.

    Raises:
        ValueError: in words.
    """
    if start not in STARTS:
        raise ValueError(_("{start} is no start; known are {known}.").format(start=start, known=", ".join(STARTS)))


class SliceCorrections:
    """The slices of a session. A mask that is not there is looked for by the worker.

    Args:
        onFound: called with a slice, whether its mask belongs to all prompts given by now, and a text.
        onNotFound: called with the worker's Failure.

    Attributes:
        startChoice: one of `STARTS`.
        propagated: slice → mask propagated to it, which prompts there correct.
        accepted: slices that the user accepted.
    """

    def __init__(self, onFound: Callable[[int, bool, str], None], onNotFound: Callable[[Failure], None]) -> None:
        self.startChoice = AUTO
        self.propagated: Mapping[int, ProposedMask] = {}
        self.accepted: set[int] = set()
        self._label: int | None = None
        self._onFound, self._onNotFound = onFound, onNotFound
        self._slices: dict[int, SliceCorrection] = {}
        # Both are there while a session is open.
        self._openSegment: CorrectedSegment | None = None
        self._openWorker: CorrectionWorker | None = None

    @property
    def _segment(self) -> CorrectedSegment:
        if self._openSegment is None:
            raise NoSessionError
        return self._openSegment

    @property
    def _worker(self) -> CorrectionWorker:
        if self._openWorker is None:
            raise NoSessionError
        return self._openWorker

    @property
    def label(self) -> int | None:
        """The segment's number in the tuned model; None where that does not find it.

        A segment that is renamed while it is corrected stays what it was, unless that is another structure's name.
        """
        labels = self._worker.labels
        name = self._segment.name
        return next((number for number, each in labels.items() if structureName(number, each) == name), self._label)

    def begin(self, segment: CorrectedSegment, worker: CorrectionWorker) -> None:
        """The worker is ready for this segment."""
        self._openSegment, self._openWorker = segment, worker
        self._label = self.label

    def forget(self) -> None:
        """The session is over."""
        self._slices.clear()
        self.propagated, self.accepted, self._label = {}, set(), None
        self._openSegment = self._openWorker = None

    def forgetMasks(self) -> None:
        """The volume is another one: all masks are to be found anew."""
        self.propagated = {}
        self._slices = {number: replace(work, mask=None, isFound=False) for number, work in self._slices.items()}

    def at(self, number: int | None) -> SliceCorrection:
        """The correction of a slice; where a mask was propagated to it, that stands for the model's own."""
        work = self._slices.get(number) if number is not None else None
        return SliceCorrection() if work is None or (number in self.propagated and not work.prompts) else work

    def withPrompts(self, numbers: Collection[int]) -> dict[int, SliceCorrection]:
        """Those of these slices that have prompts."""
        return {number: work for number, work in self.begun(numbers).items() if work.prompts}

    def begun(self, numbers: Collection[int]) -> dict[int, SliceCorrection]:
        """Those of these slices whose correction was begun."""
        return {number: self._slices[number] for number in numbers if number in self._slices}

    def proposed(self, number: int | None) -> dict[int, ProposedMask]:
        """Slice → mask that is not accepted yet: of one slice, and those that were propagated, as they were corrected.

        Args:
            number: of the one slice; None for none.
        """
        works = self.withPrompts(self.propagated)
        if number is not None:
            works[number] = self.at(number)
        return {**self.propagated} | {each: work.proposed for each, work in works.items() if work.proposed}

    def isSought(self, number: int | None) -> bool:
        """Whether the mask of a slice is not there yet."""
        work = self.at(number)
        return (bool(work.prompts) or work.start == "model") and not work.isFound

    def look(self, number: int) -> None:
        """A slice came into view: the model's own mask is shown where prompts would start from it.

        Not on a slice that was accepted: what the user found right is not called in question.
        """
        if number not in self._slices and number not in self.accepted:
            self._reset(number)
        if self.isSought(number):
            self._seek(number)

    def put(self, number: int, work: SliceCorrection) -> None:
        """Put another correction of a slice in place, and have its mask looked for."""
        if work.prompts and not work.start:
            work = self._begun(number, work)
        if work.prompts:
            self._slices[number] = work
        else:
            # There is nothing to correct: where to start from is decided anew.
            self._reset(number)
        if self.isSought(number):
            self._seek(number)
        else:
            self._worker.dropMasks(number)

    def drop(self, numbers: Collection[int]) -> None:
        """Forget the corrections of slices: their masks were accepted."""
        for number in numbers:
            self._slices.pop(number, None)
            self._worker.dropMasks(number)

    def restore(self, works: Mapping[int, SliceCorrection]) -> None:
        """Put corrections that were dropped in place again."""
        self._slices |= works

    def _reset(self, number: int) -> None:
        self._slices.pop(number, None)
        begun = self._begun(number, SliceCorrection())
        if begun.start == "model":
            self._slices[number] = begun

    def _begun(self, number: int, work: SliceCorrection) -> SliceCorrection:
        """The state of a slice with the mask that prompts start from, and what the segment holds now."""
        if number in self.propagated:
            propagated = self.propagated[number]
            return replace(work, start="given", given=propagated.mask, base=propagated.base)
        held = self._segment.mask(number)
        start = self._startFor(held)
        return replace(work, start=start, given=held if start == "given" else None, base=packed(held))

    def _startFor(self, held: np.ndarray) -> Start:
        if self.startChoice == SEGMENT or (self.startChoice == AUTO and held.any()):
            return "given"
        return "model" if self.startChoice in (AUTO, MODEL) and self.label is not None else "nothing"

    def _seek(self, number: int) -> None:
        from SAMFineTuneLib.interactive.protocol import FindMask

        work = self.at(number)
        if not work.start:
            return
        if work.given is not None:
            self._worker.give(number, work.given)
        if self._openWorker is None:
            # The files of the masks were cut off, and that has ended the session.
            return
        question = FindMask(id=0, slice=number, prompts=work.prompts, start=work.start, label=self.label)
        self._worker.ask(
            question,
            lambda answer: self._take(number, work, answer),
            lambda failure: self._giveUp(number, work, failure),
        )

    def _take(self, number: int, sought: SliceCorrection, answer: Answer) -> None:
        if self._openSegment is None or self._openSegment.problem():
            # The session is about to be closed.
            return
        work = self.at(number)
        mask = self._worker.found(number)
        if self._openWorker is None:
            # The files of the masks were cut off, and that has ended the session.
            return
        found = work.withMask(mask, answer.confidence[0] if answer.confidence else None)
        # An answer to fewer prompts than there are by now is shown until the next one comes.
        isLatest = work.prompts == sought.prompts and work.start == sought.start
        self._slices[number] = found if isLatest else replace(found, isFound=False)
        self._onFound(number, isLatest, answer.remark)

    def _giveUp(self, number: int, sought: SliceCorrection, failure: Failure) -> None:
        """What cannot be found is not waited for; other prompts may be answered."""
        work = self.at(number)
        if work.prompts == sought.prompts and number in self._slices:
            self._slices[number] = replace(work, isFound=True)
        self._onNotFound(failure)
