"""Shows how far a job is: a progress bar, a line of text, what went wrong, and its log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from SAMFineTunePanel.jobs.job import CANCELLED, FAILED, IMPORTING, PREPARING
from SAMFineTunePanel.sections.panel_section import showProblem, showText
from SAMFineTunePanel.texts.counted_text import counted
from SAMFineTunePanel.texts.error_text import textOf
from SAMFineTunePanel.texts.sizes_and_times import timeLeftText

if TYPE_CHECKING:
    import qt

    from SAMFineTunePanel.jobs.job import Job

_SHOWN_WARNINGS = 5


class JobView:
    """The part of a section that follows a job.

    Args:
        progressBar: shown while the job runs.
        statusLabel: what it is doing.
        errorLabel: why it failed.
        logEdit: what the worker tells; None where the section has no log.
    """

    def __init__(
        self,
        progressBar: qt.QProgressBar,
        statusLabel: qt.QLabel,
        errorLabel: qt.QLabel,
        logEdit: qt.QPlainTextEdit | None = None,
    ) -> None:
        self._progressBar = progressBar
        self._statusLabel = statusLabel
        self._errorLabel = errorLabel
        self._logEdit = logEdit
        self.clear()

    def clear(self) -> None:
        """Show no job."""
        self._progressBar.visible = False
        showText(self._statusLabel, "")
        showProblem(self._errorLabel, "")

    def showProblem(self, problem: str) -> None:
        """Show why a job could not even start."""
        self.clear()
        showProblem(self._errorLabel, problem)

    def attempt(self, act: Callable[[], object]) -> None:
        """Do what starts a job; show why where it cannot be done."""
        from SAMFineTuneLib.errors import InputError

        try:
            act()
        except (ValueError, RuntimeError, InputError) as error:
            self.showProblem(textOf(error))

    def show(self, job: Job, event: str = "state") -> None:
        """Show what has changed in the job."""
        if event == "log":
            self._appendLog(job)
            self._showWarnings(job)
            return
        self._progressBar.visible = not job.isFinished
        self._showSteps(job)
        showText(self._statusLabel, _statusText(job))
        self._showWarnings(job)
        if event == "state":
            self._showLog(job)

    def _showWarnings(self, job: Job) -> None:
        """Why it failed; else what to know of the result, from when it is known until the next job."""
        if job.state == FAILED:
            showProblem(self._errorLabel, job.errorMessage)
            return
        shown, more = job.warnings[:_SHOWN_WARNINGS], len(job.warnings) - _SHOWN_WARNINGS
        if more > 0:
            others = counted(more, _("1 more warning is in the log."), _("{count} more warnings are in the log."))
            shown = [*shown, others]
        showProblem(self._errorLabel, "\n⚠ ".join(shown))

    def _showSteps(self, job: Job) -> None:
        steps = job.steps if job.state not in (PREPARING, IMPORTING) else None
        self._progressBar.setRange(0, steps or 0)
        if steps:
            self._progressBar.value = min(job.step, steps)

    def _showLog(self, job: Job) -> None:
        if self._logEdit is not None:
            self._logEdit.setPlainText("\n".join(job.log))

    def _appendLog(self, job: Job) -> None:
        if self._logEdit is not None and job.log:
            self._logEdit.appendPlainText(job.log[-1])


def _statusText(job: Job) -> str:
    if job.state == PREPARING and not job.isCancelling:
        return _("Preparing the images…")
    if job.isCancelling:
        return _("Cancelling…")
    if job.state == IMPORTING:
        return _("Bringing the result into Slicer…")
    if job.state == CANCELLED:
        return _("Cancelled.")
    if job.isFinished:
        return ""
    if job.isFinishing:
        return _("Ending; the best model is being kept…")
    if not job.steps:
        return _("Starting…")
    return ", ".join(each for each in (_stepText(job), timeLeftText(job.etaSeconds)) if each)


def _stepText(job: Job) -> str:
    pattern = {
        "finetune": _("Step {step} of {steps}"),
        "apply": _("Slice {step} of {steps}"),
        "checkpoint": _("{step} of {steps} MB"),
    }[job.kind]
    text = pattern.format(step=job.step, steps=job.steps)
    if job.phase == "final pass":
        text += _(" (learning from the held-out slices as well)")
    if job.phase == "prompts":
        text += _(" (learning to be corrected)")
    return text
