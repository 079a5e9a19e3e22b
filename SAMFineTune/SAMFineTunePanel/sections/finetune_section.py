"""The section that starts a fine-tune and follows it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from SAMFineTunePanel.jobs.job import DONE, IMPORTING
from SAMFineTunePanel.parameter_node import beginsAtRandom
from SAMFineTunePanel.sections.job_view import JobView
from SAMFineTunePanel.sections.panel_section import (
    PanelSection,
    allow,
    problemWithCancelling,
    problemWithStarting,
    showText,
)
from SAMFineTunePanel.sections.unlabelled_choices import UnlabelledChoices
from SAMFineTunePanel.texts.backbone_text import problemWithWeights
from SAMFineTunePanel.texts.counted_text import counted
from SAMFineTunePanel.texts.more_time_text import moreTimeText
from SAMFineTunePanel.texts.sizes_and_times import dateText
from SAMFineTunePanel.widgets.loss_chart import LossChart

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTuneLib.jobs.interrupted import InterruptedFinetune
    from SAMFineTuneLib.models.library import TunedModel
    from SAMFineTuneLib.weights.availability import AvailableBackbone
    from SAMFineTunePanel.jobs.job import Job

# Drawing the chart costs a few milliseconds; a worker may tell of many steps in a second.
_BETWEEN_DRAWINGS_S = 0.5
_PREVIEW_WIDTH, _PREVIEW_HEIGHT = 340, 280


class FineTuneSection(PanelSection):
    """Start, finish now, cancel; progress, chart, preview and log; what was interrupted."""

    uiFile = "SAMFineTuneFineTuneSection.ui"

    def __init__(self, logic: SAMFineTuneLogic) -> None:
        super().__init__(logic)
        self._job: Job | None = None
        self._interrupted: list[InterruptedFinetune] = []
        self._backbones: dict[str, AvailableBackbone] = {}
        self._models: dict[str, TunedModel] = {}
        self._resultName = ""
        self._chart = LossChart()
        self._chartShown = False
        self._drawnAt = 0.0
        self._unlabelled = UnlabelledChoices(self.ui, self)
        self._view = JobView(self.ui.progressBar, self.ui.statusLabel, self.ui.errorLabel, self.ui.logEdit)
        self.ui.resumeFrame.visible = False
        self.ui.previewLabel.visible = False
        self.ui.modelNameEdit.placeholderText = _("named after its structures")
        self.ui.startButton.connect("clicked(bool)", self.onStart)
        self.ui.finishButton.connect("clicked(bool)", self.onFinish)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.ui.goOnButton.connect("clicked(bool)", self.onGoOn)
        self.ui.chartButton.connect("clicked(bool)", self.onShowChart)
        self.ui.resumeButton.connect("clicked(bool)", self.onResume)
        self.ui.discardButton.connect("clicked(bool)", self.onDiscard)

    def forgetScene(self) -> None:
        self._chart.forget()
        self._chartShown = False
        self._resultName = ""

    def update(self) -> None:
        if not self.hasParameters:
            return
        self._unlabelled.update(self._preset())
        busy = problemWithStarting(self.logic)
        allow(
            self.ui.startButton,
            busy or self.logic.problemWithFineTune() or self._problemWithWeights(),
            _("Learn the structure from the labelled slices; Slicer stays free for other work"),
        )
        allow(
            self.ui.cancelButton,
            problemWithCancelling(self._job, _("No fine-tune is running")),
            _("Stop, and keep nothing"),
        )
        allow(self.ui.finishButton, self._problemWithFinishing(), _("Stop here, and keep the best model so far"))
        self._allowGoingOn(busy)
        noPoints = "" if self._job is not None else _("The chart is of a fine-tune; start one first")
        allow(
            self.ui.chartButton,
            noPoints,
            _("Loss and validation DSC in Slicer's plot view; after zooming there, press again to see all of it"),
        )
        allow(self.ui.resumeButton, busy, _("Go on where it stopped"))
        allow(self.ui.discardButton, busy, _("Forget what was learnt so far, and delete its files"))

    def updateFromFiles(self, models: list[TunedModel]) -> None:
        from SAMFineTuneLib.weights.availability import list_backbones

        self._backbones = {each.name: each for each in list_backbones()}
        self._models = {each.name: each for each in models}
        self._interrupted = self.logic.interruptedFineTunes()
        self._showInterrupted()

    def showJob(self, job: Job) -> None:
        if job.kind == "finetune":
            self._job = job
            self._resultName = ""
            self.ui.previewLabel.visible = False
            self.ui.scoreLabel.text = ""
            self.followJob(job, self._onJobEvent)
        self._showInterrupted()
        self.update()

    def onStart(self, checked: bool = False) -> None:
        """Start with the choices of the panel."""
        self._view.attempt(self.logic.startFineTune)

    def onGoOn(self, checked: bool = False) -> None:
        """Learn further where the model's fine-tune ended."""
        model = self._modelToGoOn
        if model is not None:
            self._view.attempt(lambda: self.logic.goOnLearning(model))

    def onResume(self, checked: bool = False) -> None:
        """Go on with what was interrupted."""
        if self._interrupted:
            self._view.attempt(lambda: self.logic.resume(self._interrupted[0]))

    def onDiscard(self, checked: bool = False) -> None:
        """Forget what was interrupted."""
        if self._interrupted:
            self._view.attempt(lambda: self.logic.discard(self._interrupted[0]))
            self.filesChanged()

    def onFinish(self, checked: bool = False) -> None:
        """End now and keep the best."""
        if self._job is not None:
            self._job.finishNow()

    def onCancel(self, checked: bool = False) -> None:
        """End now and keep nothing."""
        if self._job is not None:
            self._job.cancel()

    def onShowChart(self, checked: bool = False) -> None:
        """Show loss and validation DSC in the plot view, and keep them up to date."""
        self._chartShown = True
        self._draw()
        self._chart.show()

    def _preset(self) -> str:
        """The user's, or that of the hardware; "" until it is known."""
        hardware = self.logic.hardware
        return self.parameterNode.preset or (str(hardware["preset"]) if hardware is not None else "")

    @property
    def _modelToGoOn(self) -> TunedModel | None:
        """The one that the status line tells of; else the one that is chosen to be applied."""
        return self._models.get(self._resultName) or self._models.get(self.parameterNode.applyModel)

    def _allowGoingOn(self, busy: str) -> None:
        model = self._modelToGoOn
        name = model.name if model is not None else ""
        allow(
            self.ui.goOnButton,
            busy or self.logic.problemWithGoingOn(model),
            _("Have “{model}” learn further from the same examples, and replace it when that is done").format(
                model=name
            ),
        )
        self.ui.goOnLabel.text = name

    def _problemWithFinishing(self) -> str:
        job = self._job
        if job is not None and (job.isFinishing or job.state == IMPORTING):
            return _("It is ending; the best model is being kept")
        problem = problemWithCancelling(job, _("No fine-tune is running"))
        return problem or ("" if job is not None and job.canFinishNow else _("Nothing has been learnt yet"))

    def _problemWithWeights(self) -> str:
        node = self.parameterNode
        if node.checkpoint or node.startFrom or beginsAtRandom(node):
            return ""
        return problemWithWeights(self._backbones.get(node.backbone))

    def _onJobEvent(self, job: Job, event: str) -> None:
        if job is not self._job:
            return
        self._view.show(job, event)
        if event == "preview":
            self._showPreview(job.previewPath)
        elif event == "progress":
            self._showScore(job)
            if time.monotonic() - self._drawnAt > _BETWEEN_DRAWINGS_S:
                self._draw()
        elif event == "state" and job.isFinished:
            self._draw()
            self._conclude(job)
        if event != "log":
            self.update()

    def _conclude(self, job: Job) -> None:
        if job.state == DONE:
            done = _("Done: tuned model “{name}”. Apply it below.").format(name=job.result.name)
            offer = moreTimeText(job.result.card) if job.result.card is not None else ""
            showText(self.ui.statusLabel, f"{done} {offer}".rstrip())
            self._resultName = job.result.name
            # The scene keeps it also while another module is shown.
            node = self.logic.getParameterNode()
            node.applyModel = job.result.name
            if not self.logic.correction.session.isOpen:
                # An open one goes on with the model that it was opened with.
                node.correctModel = job.result.name
        self.filesChanged()

    def _showScore(self, job: Job) -> None:
        figures = []
        if job.loss is not None:
            figures.append(_("loss {loss:.3f}").format(loss=job.loss))
        if job.validationDsc is not None:
            figures.append(_("validation DSC {dsc:.3f}").format(dsc=job.validationDsc))
        self.ui.scoreLabel.text = ", ".join(figures)

    def _showPreview(self, path: str) -> None:
        picture = qt.QPixmap(path)
        if picture.isNull():
            return
        self.ui.previewLabel.setPixmap(
            picture.scaled(_PREVIEW_WIDTH, _PREVIEW_HEIGHT, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation)
        )
        self.ui.previewLabel.visible = True

    def _draw(self) -> None:
        # While another module is in view too: the chart stays, and the job may end meanwhile.
        if self._chartShown and self._job is not None:
            self._drawnAt = time.monotonic()
            self._chart.draw(self._job.losses, self._job.validations)

    def _showInterrupted(self) -> None:
        running = self._job is not None and not self._job.isFinished
        self.ui.resumeFrame.visible = bool(self._interrupted) and not running
        if self._interrupted:
            self.ui.resumeLabel.text = _interruptedText(self._interrupted)


def _interruptedText(interrupted: list[InterruptedFinetune]) -> str:
    first = interrupted[0]
    text = _("A fine-tune of {labels} was interrupted at step {step} of {steps} ({when}).").format(
        labels=", ".join(first.labels) or first.output.stem,
        step=first.step,
        steps=first.steps or _("unknown"),
        when=dateText(first.when),
    )
    if len(interrupted) > 1:
        text += " " + counted(len(interrupted) - 1, _("1 more was interrupted."), _("{count} more were interrupted."))
    return text
