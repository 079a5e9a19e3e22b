"""The panel: its sections in the order of work, kept up to date with the scene, the jobs and the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAMFineTunePanel.scene.scene_pairs import imagesOfScene
from SAMFineTunePanel.sections.apply_section import ApplySection
from SAMFineTunePanel.sections.correct_section import CorrectSection
from SAMFineTunePanel.sections.examples_section import ExamplesSection
from SAMFineTunePanel.sections.finetune_section import FineTuneSection
from SAMFineTunePanel.sections.model_section import ModelSection
from SAMFineTunePanel.sections.models_section import ModelsSection
from SAMFineTunePanel.sections.packages_section import PackagesSection
from SAMFineTunePanel.sections.panel_section import PanelSection
from SAMFineTunePanel.worker.chunked_task import ChunkedTask
from SAMFineTunePanel.worker.library_parts import areLibraryPartsImported, importingLibraryParts

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTunePanel.jobs.job import Job
    from SAMFineTunePanel.parameter_node import SAMFineTuneParameterNode

# Many changes come at once; one update is enough for all of them.
_CHANGES_REST_MS = 30


class Panel(VTKObservationMixin):
    """All sections; those after Packages are locked until the packages are there.

    Args:
        layout: of the module's widget.
        logic: the module's.
    """

    def __init__(self, layout: qt.QVBoxLayout, logic: SAMFineTuneLogic) -> None:
        VTKObservationMixin.__init__(self)
        self._layout = layout
        self._logic = logic
        self._parameterNode: SAMFineTuneParameterNode | None = None
        self._filesToo = False
        self._offered: set[str] = set()
        self._followed: list[Job] = []
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_CHANGES_REST_MS)
        self._timer.connect("timeout()", self._update)
        self._importing: ChunkedTask | None = None
        self.isReady = False

    def setup(self) -> None:
        """Make the sections, once."""
        self.packages = PackagesSection(self._logic)
        self.examples = ExamplesSection(self._logic)
        self.model = ModelSection(self._logic)
        self.fineTune = FineTuneSection(self._logic)
        self.apply = ApplySection(self._logic)
        self.correct = CorrectSection(self._logic)
        self.models = ModelsSection(self._logic)
        self.packages.changed = self._lookAtPackages
        for section in (self.packages, *self._working):
            self._layout.addWidget(section.widget)
        for section in self._working:
            section.changed = self.updateSoon
            section.filesChanged = self._updateFromFilesSoon
        self._layout.addStretch(1)
        self._logic.addJobListener(self._onJobStarted)
        if self._logic.job is not None:
            self._onJobStarted(self._logic.job)

    @property
    def _working(self) -> tuple[PanelSection, ...]:
        return self.examples, self.model, self.fineTune, self.apply, self.correct, self.models

    @property
    def _sceneSlots(self) -> tuple[tuple, ...]:
        events = slicer.vtkMRMLScene
        return (
            (events.NodeAddedEvent, self._onModified),
            (events.NodeRemovedEvent, self._onModified),
            (events.StartImportEvent, self._onStartImport),
            (events.EndBatchProcessEvent, self._onEndBatchProcess),
        )

    def enter(self) -> None:
        """The module is shown."""
        for event, slot in self._sceneSlots:
            self.addObserver(slicer.mrmlScene, event, slot)
        self._showParameters()
        self._lookAtPackages()

    def exit(self) -> None:
        """Another module is shown: leave the scene in peace; a running job is still followed."""
        self._timer.stop()
        self._stopImporting()
        for event, slot in self._sceneSlots:
            self.removeObserver(slicer.mrmlScene, event, slot)
        self.examples.exit()
        self.correct.exit()
        self.setParameterNode(None)

    def onSceneStartClose(self) -> None:
        """Nothing of the scene may be used any more."""
        self._timer.stop()
        self.examples.exit()
        self.setParameterNode(None)
        for section in self._working:
            section.forgetScene()

    def onSceneEndClose(self) -> None:
        """The scene is empty: begin again with it."""
        self._showParameters()
        if self.isReady:
            self.examples.enter()
            self.correct.enter()
        self._updateFromFilesSoon()

    def setParameterNode(self, node: SAMFineTuneParameterNode | None) -> None:
        """Show this node's parameters; None: show none."""
        if self._parameterNode is not None:
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified)
        self._parameterNode = node
        self._offered = set()
        for section in self._working:
            section.setParameterNode(node)
        if node is not None:
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onModified)

    def cleanup(self) -> None:
        """Let go of everything; the module is unloaded or Slicer closes."""
        self._timer.stop()
        self._stopImporting()
        self._logic.removeJobListener(self._onJobStarted)
        for job in self._followed:
            job.removeListener(self._onJobEvent)
        self.setParameterNode(None)
        for section in (self.packages, *self._working):
            section.cleanup()
        self.removeObservers()

    def updateSoon(self) -> None:
        """Bring all sections up to date, once things have settled."""
        self._timer.start()

    def _updateFromFilesSoon(self) -> None:
        self._filesToo = True
        self.updateSoon()

    def _lookAtPackages(self) -> None:
        self.isReady = False
        self._stopImporting()
        if not self.packages.look():
            reason = (
                _("Restart Slicer first") if self.packages.needsRestart else _("Install the packages first: see above")
            )
            for section in self._working:
                section.lock(reason)
        elif areLibraryPartsImported():
            self._begin()
        else:
            # The panel comes into view first; with these it would take twice as long.
            self._importing = ChunkedTask(importingLibraryParts(), self._begin, self._failToImport)
            self._importing.start()

    def _stopImporting(self) -> None:
        if self._importing is not None:
            self._importing.stop()
            self._importing = None

    def _failToImport(self, error: Exception) -> None:
        raise error

    def _begin(self) -> None:
        """All is there that the sections need."""
        self.isReady = True
        for section in self._working:
            section.unlock()
        self.examples.enter()
        self.model.enter()
        self.correct.enter()
        self._filesToo = True
        self._update()

    def _onModified(self, caller: object = None, event: object = None) -> None:
        self.updateSoon()

    def _showParameters(self) -> None:
        # While a scene is imported, its end is waited for.
        if not slicer.mrmlScene.IsImporting():
            self.setParameterNode(self._logic.getParameterNode())

    def _onStartImport(self, caller: object = None, event: object = None) -> None:
        # The parameter node gets its new values before node selectors know the new nodes, and at the end these
        # selectors lose what they show: neither must be taken for a choice.
        self.setParameterNode(None)

    def _onEndBatchProcess(self, caller: object = None, event: object = None) -> None:
        # The selectors know all nodes by now. Other work than an import ends here, too.
        if self._parameterNode is None:
            self._showParameters()
            # The choices of another scene: they may name models, or none.
            self._filesToo = True
        self.updateSoon()

    def _onJobStarted(self, job: Job) -> None:
        for section in self._working:
            section.showJob(job)
        self._followed = [*(each for each in self._followed if not each.isFinished), job]
        job.addListener(self._onJobEvent)

    def _onJobEvent(self, job: Job, event: str) -> None:
        if event != "state":
            return
        if job.isFinished:
            # What it has left on the disk, and what may be deleted there now.
            self._updateFromFilesSoon()
        else:
            self.updateSoon()

    def _update(self) -> None:
        # A scene that is being opened tells when it is there.
        if not self.isReady or self._parameterNode is None or slicer.mrmlScene.IsBatchProcessing():
            return
        self._offerNewVolumes()
        if self._filesToo:
            self._filesToo = False
            models = self._logic.models()
            for section in self._working:
                section.updateFromFiles(models)
        for section in self._working:
            section.update()

    def _offerNewVolumes(self) -> None:
        """Images have come, or another scene: where none is chosen, the one in view suggests itself."""
        volumes = {each.GetID() for each in imagesOfScene()}
        if volumes - self._offered:
            for section in self._working:
                section.offerVolume()
        self._offered = volumes
