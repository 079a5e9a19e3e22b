"""Going through the slices of which the tuned model is uncertain, from the least certain one on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction_session import CorrectionSession
from SAMFineTunePanel.texts.error_text import asSentence

if TYPE_CHECKING:
    from SAMFineTuneLib.interactive.protocol import Answer


class UncertainSlices:
    """Shows one of them after the other; each once, until all were shown.

    Args:
        session: whose model ranks the slices.
    """

    def __init__(self, session: CorrectionSession) -> None:
        self._session = session
        self._shown: set[int] = set()

    def showNext(self) -> None:
        """Ask for the ranking and show the next; see `Correction.nextUncertain`."""
        from SAMFineTuneLib.interactive.protocol import RankSlices

        self._session.requireReady()
        if self._session.model is None:
            raise ValueError(_("Only a tuned model can tell of which slices it is uncertain. Choose one."))
        question = RankSlices(id=0, label=self._session.label)
        self._session.worker.ask(question, self._onRanked, self._session.status.reportFailure)

    def forget(self) -> None:
        """The session is over."""
        self._shown.clear()

    def _onRanked(self, answer: Answer) -> None:
        accepted = self._session.slices.accepted
        number = next((each for each in answer.slices if each not in accepted and each not in self._shown), None)
        if number is None:
            self._shown.clear()
            text = _("No other slice is left: all were shown or accepted.")
        else:
            self._shown.add(number)
            self._session.look(number)
            text = _("Slice {number}: here the model is least certain.").format(number=number)
        self._session.status.report(f"{text} {asSentence(answer.remark)}".strip())
