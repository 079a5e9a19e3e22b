"""The buttons of an open correction: which of them can be pressed, and what their tooltips say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from SAMFineTunePanel.correction.correction_session import READY
from SAMFineTunePanel.sections.panel_section import allow, problemWithStarting, showText

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTunePanel.correction.correction_session import CorrectionSession

_LISTED_SLICES = 12


class CorrectionTools:
    """Shows at what a correction is, on the widgets of the section Correct.

    Args:
        ui: the widgets of the section.
        logic: SAMFineTuneLogic, whose correction it is.
    """

    def __init__(self, ui: Any, logic: SAMFineTuneLogic) -> None:
        self._ui, self._logic = ui, logic

    def update(self) -> None:
        """Enable what can be done at present; nothing while no correction is open."""
        session = self._logic.correction.session
        if not session.isOpen:
            return
        wait = _("The network is being started") if session.state != READY else ""
        showText(self._ui.sliceLabel, "" if wait else _sliceText(session))
        self._updatePrompts(session, wait)
        self._updateSteps(session, wait)
        self._updatePropagation(wait)
        self._updateLearning(session, wait)

    def _updatePrompts(self, session: CorrectionSession, wait: str) -> None:
        allow(self._ui.positiveButton, wait, _("Clicks on the structure (P; X switches to points beside it)"))
        allow(self._ui.negativeButton, wait, _("Clicks beside the structure (X switches to points on it)"))
        allow(
            self._ui.boxButton,
            wait,
            _(
                "Two clicks around the structure (B, which is elsewhere Slicer's key for the previous slice; "
                "here take the mouse wheel or the left arrow key)"
            ),
        )
        isSet = session.current.prompts or session.propagated
        allow(
            self._ui.clearButton,
            wait or ("" if isSet else _("Nothing is set on this slice")),
            _("Take all prompts of this slice away, or the propagated masks"),
        )
        allow(
            self._ui.nextButton,
            wait or ("" if session.model is not None else _("Only a tuned model knows where it is uncertain")),
            _("Show the slice of which the model is least certain (N)"),
        )

    def _updateSteps(self, session: CorrectionSession, wait: str) -> None:
        history = session.history
        allow(
            self._ui.acceptButton,
            wait or ("" if session.number is not None else _("No slice of the volume is in view")),
            _("Write the mask into the segment (Enter)"),
        )
        allow(
            self._ui.undoButton,
            wait or ("" if history.canUndo() else _("There is nothing to undo")),
            _("Undo: {step} (Ctrl+Z)").format(step=history.undoText),
        )
        allow(
            self._ui.redoButton,
            wait or ("" if history.canRedo() else _("There is nothing to redo")),
            _("Redo: {step} (Ctrl+Y)").format(step=history.redoText),
        )

    def _updatePropagation(self, wait: str) -> None:
        allow(
            self._ui.propagateButton,
            wait or self._problemWithPropagating(1),
            _("Propagate accepted masks, slice by slice, until the structure ends; shown before it is kept"),
        )
        allow(
            self._ui.betweenButton,
            wait or self._problemWithPropagating(2),
            _("Fill the slices between accepted ones; shown before it is kept"),
        )
        isPropagating = self._logic.correction.isPropagating
        allow(self._ui.stopButton, "" if isPropagating else _("Nothing is being propagated"), _("Break it off"))

    def _updateLearning(self, session: CorrectionSession, wait: str) -> None:
        nothing = "" if session.accepted else _("Accept a slice first")
        allow(
            self._ui.examplesButton,
            wait or nothing,
            _("Have the accepted slices learnt from at the next fine-tune"),
        )
        if self._logic.getParameterNode().examples:
            nothing = ""
        allow(
            self._ui.fineTuneButton,
            wait or nothing or problemWithStarting(self._logic),
            _("Fine-tune on the examples, starting from the model at work"),
        )

    def _problemWithPropagating(self, least: int) -> str:
        correction = self._logic.correction
        if correction.session.isSingleSlice:
            return _("This is a single slice: there is no other one to propagate to")
        if correction.isPropagating:
            return _("Masks are being propagated")
        if correction.session.propagated:
            return _("Accept or clear the propagated masks first")
        if len(correction.session.accepted) < least:
            return _("Accept a slice first") if least == 1 else _("Accept two slices first")
        return ""


def _sliceText(session: CorrectionSession) -> str:
    """The slice in view, how certain its mask is, and which slices are accepted."""
    segment = session.segment
    if session.number is None:
        return _("No view shows {orientation} slices of {volume} as they were taken.").format(
            orientation=segment.orientation, volume=segment.volume.GetName()
        )
    sentences = [
        _("{orientation} slice {number} of 0 to {last}.").format(
            orientation=segment.orientation.capitalize(), number=session.number, last=segment.count - 1
        )
    ]
    if session.current.confidence is not None and session.current.isFound:
        sentences.append(_("Expected overlap {share:.0%}.").format(share=session.current.confidence))
    accepted = sorted(session.accepted)
    if accepted:
        numbers = ", ".join(map(str, accepted[:_LISTED_SLICES]))
        more = "…" if len(accepted) > _LISTED_SLICES else ""
        sentences.append(_("Accepted: {numbers}{more}.").format(numbers=numbers, more=more))
    return " ".join(sentences)
