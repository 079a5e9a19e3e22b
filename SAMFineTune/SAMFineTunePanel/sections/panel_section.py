"""What the panel's sections have in common: a .ui file, the parameter node, and words for what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAMFineTunePanel.folders import resourcePath

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTuneLib.models.library import TunedModel
    from SAMFineTunePanel.jobs.job import Job
    from SAMFineTunePanel.parameter_node import SAMFineTuneParameterNode


JobListener = Callable[["Job", str], None]


class PanelSection(VTKObservationMixin):
    """A collapsible part of the panel; it shows and asks, and leaves the doing to the logic.

    Attributes:
        widget: what the .ui file holds.
        ui: its parts by name.
        changed: called after something was changed that other sections show too.
        filesChanged: called after tuned models or weights came or went.
    """

    uiFile = ""
    # Names of labels that show links.
    richLabels: tuple[str, ...] = ()

    def __init__(self, logic: SAMFineTuneLogic) -> None:
        VTKObservationMixin.__init__(self)
        self.logic = logic
        self._parameterNode: SAMFineTuneParameterNode | None = None
        self.changed: Callable[[], None] = lambda: None
        self.filesChanged: Callable[[], None] = lambda: None
        self._guiTag: int | None = None
        self._followed: list[tuple[Job, JobListener]] = []
        self._collapsedBefore: bool | None = None
        self.widget = slicer.util.loadUI(resourcePath(f"UI/{self.uiFile}"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self._tameLabels()

    @property
    def hasParameters(self) -> bool:
        """Whether there is a parameter node, whose parameters the widgets show."""
        return self._parameterNode is not None

    @property
    def parameterNode(self) -> SAMFineTuneParameterNode:
        """What the widgets show.

        Raises:
            RuntimeError: there is none while the scene is closing, or the panel is not in view.
        """
        if self._parameterNode is None:
            raise RuntimeError("the panel shows no parameters at present")
        return self._parameterNode

    def _tameLabels(self) -> None:
        """Names are the user's: as long as they like, and no markup whatever is in them."""
        for label in slicer.util.findChildren(self.widget, className="QLabel"):
            if label.name not in self.richLabels:
                label.textFormat = qt.Qt.PlainText
            if label.wordWrap:
                # A name without a space must not make the panel wider than its place.
                label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)

    def setParameterNode(self, node: SAMFineTuneParameterNode | None) -> None:
        """Show this node's parameters from now on; None: the scene is closing."""
        if self._parameterNode is not None and self._guiTag is not None:
            self._parameterNode.disconnectGui(self._guiTag)
        self._guiTag = None
        self._parameterNode = node
        if node is not None:
            self._guiTag = node.connectGui(self.ui)

    def offerVolume(self) -> None:
        """Choose the volume in view where none is chosen: the scene has another one, or is another one."""

    def update(self) -> None:
        """Show what has changed in the parameter node, the scene or the logic; cheap."""

    def updateFromFiles(self, models: list[TunedModel]) -> None:
        """Show what has changed on the disk, such as tuned models and weights."""

    def showJob(self, job: Job) -> None:
        """Show a job that has just started, whoever started it."""

    def followJob(self, job: Job, listener: JobListener) -> None:
        """Have `listener(job, event)` called until the section goes, and show the job as it is."""
        self._followed = [*(each for each in self._followed if not each[0].isFinished), (job, listener)]
        job.addListener(listener)
        listener(job, "state")

    def forgetScene(self) -> None:
        """The scene is closing: keep none of its nodes."""

    def cleanup(self) -> None:
        """Let go of the scene and of the logic."""
        for job, listener in self._followed:
            job.removeListener(listener)
        self.setParameterNode(None)
        self.removeObservers()

    def lock(self, reason: str) -> None:
        """Fold the section and say why it cannot be used yet."""
        button = self.ui.collapsibleButton
        if self._collapsedBefore is None:
            self._collapsedBefore = button.collapsed
        button.collapsed = True
        button.enabled = False
        button.toolTip = reason

    def unlock(self) -> None:
        """Undo `lock`."""
        button = self.ui.collapsibleButton
        button.enabled = True
        button.toolTip = ""
        if self._collapsedBefore is not None:
            button.collapsed = self._collapsedBefore
            self._collapsedBefore = None


def problemWithStarting(logic: SAMFineTuneLogic) -> str:
    """Why no job can be started at present; "" when one can."""
    if logic.job is None or logic.job.isFinished:
        return ""
    return _("{title} is at work; wait for it or cancel it first").format(title=logic.job.title)


def problemWithCancelling(job: Job | None, idle: str) -> str:
    """Why a job cannot be cancelled; "" when it can.

    Args:
        job: the section's; None where there was none yet.
        idle: what to say where no such job runs.
    """
    if job is None or job.isFinished:
        return idle
    return _("It is being cancelled already") if job.isCancelling else ""


def allow(widget: qt.QWidget, problem: str, toolTip: str) -> None:
    """Enable a widget, or disable it with a tooltip that says what is missing."""
    widget.enabled = not problem
    widget.toolTip = problem or toolTip


def showText(label: qt.QLabel, text: str) -> None:
    """Show a line of text; an empty one takes no room."""
    label.text = text
    label.visible = bool(text)


def showProblem(label: qt.QLabel, problem: str) -> None:
    """Show what is wrong; nothing when nothing is."""
    showText(label, f"⚠ {problem}" if problem else "")
