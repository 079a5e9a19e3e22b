"""Propagation: accepted masks are carried to other slices, where they are shown before they are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction_session import CorrectionSession
from SAMFineTunePanel.segment_editing.proposed_mask import ProposedMask, packed
from SAMFineTunePanel.texts.error_text import asSentence
from SAMFineTunePanel.texts.slices_text import slicesText

if TYPE_CHECKING:
    from SAMFineTuneLib.interactive.protocol import Answer, Failure


class Propagation:
    """Asks the worker to propagate, and keeps what it finds as proposals.

    The errors of its methods are described at those of `Correction`.

    Args:
        session: whose accepted slices are propagated.

    Attributes:
        isRunning: whether masks are being propagated.
    """

    def __init__(self, session: CorrectionSession) -> None:
        self.isRunning = False
        self._session = session

    def outward(self, slices: int | None) -> None:
        """Propagate to the slices beyond the accepted ones."""
        if slices is not None and slices < 1:
            raise ValueError(_("Propagate to at least one slice."))
        self.start(slices, between=False)

    def between(self) -> None:
        """Fill the slices between accepted ones."""
        self._session.requireReady()
        self._requireOtherSlices()
        accepted = self._session.slices.accepted
        if len(accepted) < 2 or max(accepted) - min(accepted) < len(accepted):
            raise ValueError(_("Accept two slices with others between them first."))
        self.start(0, between=True)

    def start(self, outward: int | None, between: bool) -> None:
        """Propagate outward and between accepted slices; see `Correction.startPropagation`."""
        from SAMFineTuneLib.interactive.protocol import Propagate

        self._session.requireReady()
        self._requireOtherSlices()
        self._requireReadiness()
        segment, worker = self._session.segment, self._session.worker
        accepted = sorted(self._session.slices.accepted)
        for number in accepted:
            worker.give(number, segment.mask(number))
        outward = segment.count if outward is None else outward
        # Read now: what is painted during the propagation must not be changed by it.
        reach = range(max(0, accepted[0] - outward), min(segment.count, accepted[-1] + outward + 1))
        bases = {number: packed(segment.mask(number)) for number in reach}
        self.isRunning = True
        self._session.status.report(_("Propagating from {what}…").format(what=slicesText(accepted)))
        question = Propagate(
            id=0, accepted=tuple(accepted), label=self._session.label, outward=outward, between=between
        )
        worker.ask(question, lambda answer: self._onAnswer(answer, bases), self._onFailure)

    def stop(self) -> None:
        """Break it off."""
        if self.isRunning:
            self._session.worker.stopPropagation()

    def clear(self) -> None:
        """Drop what was propagated, as a step of the history."""
        if self._session.slices.propagated:
            self._propose({}, _("clearing of the propagated masks"))
            self._session.status.report(_("The propagated masks are dropped."))

    def forget(self) -> None:
        """No answer is to be expected any more."""
        self.isRunning = False

    def _requireOtherSlices(self) -> None:
        """A picture has none."""
        if self._session.isSingleSlice:
            raise ValueError(
                _("{volume} is a single slice: there is no other one to propagate to.").format(
                    volume=self._session.segment.volume.GetName()
                )
            )

    def _requireReadiness(self) -> None:
        if self.isRunning:
            raise ValueError(_("Masks are being propagated already. Stop it first."))
        if self._session.slices.propagated:
            raise ValueError(_("Accept or clear the propagated masks first."))
        if not self._session.slices.accepted:
            raise ValueError(_("Accept a slice first: accepted slices are propagated."))

    def _onAnswer(self, answer: Answer, bases: Mapping[int, np.ndarray]) -> None:
        self.isRunning = False
        if self._session.segment.problem():
            return
        status, worker = self._session.status, self._session.worker
        masks = {}
        for number in answer.slices:
            masks[number] = ProposedMask(worker.found(number), bases[number])
            if not self._session.isOpen:
                # The files of the masks were cut off, and that has ended the session.
                return
        changed = {number: each for number, each in masks.items() if each.changed.any()}
        if not changed:
            status.report(" ".join([_("Propagated: nothing changes."), asSentence(answer.remark)]).strip())
            return
        what = slicesText(sorted(changed))
        self._propose(changed, _("propagation to {what}").format(what=what))
        text = _("Propagated to {what}. Accept keeps it, Clear drops it.").format(what=what)
        status.report(f"{text} {asSentence(answer.remark)}".strip())

    def _onFailure(self, failure: Failure) -> None:
        self.isRunning = False
        if failure.code == "stopped":
            self._session.status.report(_("Stopped; nothing was propagated."))
        else:
            self._session.status.reportFailure(failure)

    def _propose(self, masks: Mapping[int, ProposedMask], text: str) -> None:
        """Put masks in the place of those that were propagated before, as a step of the history."""
        slices, status = self._session.slices, self._session.status
        before, slices.propagated = slices.propagated, masks

        def exchange() -> None:
            nonlocal before
            before, slices.propagated = slices.propagated, before
            status.notify("mask")

        self._session.history.add(text, exchange, exchange)
        status.notify("mask")
