"""The section that segments volumes with a tuned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.case_images import crossedNames, imagesOffered, problemForModel
from SAMFineTunePanel.jobs.job import DONE
from SAMFineTunePanel.scene.scene_pairs import imagesOfScene, volumesOfScene
from SAMFineTunePanel.scene.sequences import sequenceOf
from SAMFineTunePanel.sections.job_view import JobView
from SAMFineTunePanel.sections.panel_section import (
    PanelSection,
    allow,
    problemWithCancelling,
    problemWithStarting,
    showText,
)
from SAMFineTunePanel.widgets.image_choices import ImageChoices
from SAMFineTunePanel.widgets.parameter_choices import ComboBoxChoice
from SAMFineTunePanel.widgets.ticked_list import Entry, TickedList

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTuneLib.models.library import TunedModel
    from SAMFineTuneLib.models.model_file import ModelCard
    from SAMFineTunePanel.jobs.job import Job


class ApplySection(PanelSection):
    """Tuned model, volumes, where to write; apply, cancel, undo."""

    uiFile = "SAMFineTuneApplySection.ui"

    def __init__(self, logic: SAMFineTuneLogic) -> None:
        super().__init__(logic)
        self._job: Job | None = None
        # The cards of the tuned models that can be used, by name.
        self._cards: dict[str, ModelCard] = {}
        self._results: list[slicer.vtkMRMLSegmentationNode] = []
        self._view = JobView(self.ui.progressBar, self.ui.statusLabel, self.ui.errorLabel, self.ui.logEdit)
        self._model = ComboBoxChoice(self.ui.modelComboBox, self, "applyModel")
        # Not a node selector with ticks: that one drops its ticks when a scene is imported.
        self._volumes = TickedList(self.ui.volumesTable, self.onVolumesChosen)
        self._images = ImageChoices(
            (
                (self.ui.secondImageLabel, self.ui.secondImageComboBox),
                (self.ui.thirdImageLabel, self.ui.thirdImageComboBox),
            ),
            self.onImagesChosen,
        )
        # Model and volume for which images were offered: what the user takes away does not come back by itself.
        self._offeredFor: tuple[str, str] = ("", "")
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.ui.undoButton.connect("clicked(bool)", self.onUndo)

    def offerVolume(self) -> None:
        if self.hasParameters and not self._chosenVolumes():
            self.parameterNode.applyVolumes = volumesOfScene()[:1]

    def forgetScene(self) -> None:
        self._results = []
        self._offeredFor = ("", "")

    def update(self) -> None:
        if not self.hasParameters:
            return
        self._offerModel()
        self._model.update()
        self._showVolumes()
        self._offerImages()
        self._showImages()
        volumes = self._chosenVolumes()
        hasFrames = len(volumes) == 1 and sequenceOf(volumes[0]) is not None
        self.ui.allFramesCheckBox.visible = hasFrames
        several = _("Several volumes get a new segmentation each") if len(self._chosenVolumes()) > 1 else ""
        if hasFrames and self.parameterNode.applyAllFrames:
            several = _("The frames get a new segmentation")
        allow(
            self.ui.segmentationSelector,
            several,
            _("A new segmentation, or one of the scene, whose other segments are not touched"),
        )
        allow(self.ui.modelComboBox, "" if self._cards else _noModels(), _("Which tuned model segments"))
        problem = problemWithStarting(self.logic) or ("" if self._cards else _noModels())
        allow(
            self.ui.applyButton, problem or self.logic.problemWithApply(), _("Segment the volumes with the tuned model")
        )
        allow(
            self.ui.cancelButton,
            problemWithCancelling(self._job, _("Nothing is being applied")),
            _("Stop; the scene stays as it is"),
        )
        allow(
            self.ui.undoButton,
            "" if self._undoable() else _("There is no result to take back"),
            _("Take back what was applied last"),
        )

    def updateFromFiles(self, models: list[TunedModel]) -> None:
        self._cards = {model.name: model.card for model in models if model.card is not None}
        self._model.setItems([(name, _modelTitle(name, card)) for name, card in self._cards.items()])
        self.update()

    def showJob(self, job: Job) -> None:
        if job.kind == "apply":
            self._job = job
            self.followJob(job, self._onJobEvent)
        self.update()

    def onVolumesChosen(self, nodeIDs: list[str]) -> None:
        """Other volumes to segment."""
        if not self.hasParameters:
            return
        self.parameterNode.applyVolumes = [slicer.mrmlScene.GetNodeByID(each) for each in nodeIDs]
        if len(nodeIDs) > 1:
            self.parameterNode.applySegmentation = None

    def onImagesChosen(self, nodeIDs: list[str]) -> None:
        """Other further images for the volume to segment."""
        if self.hasParameters:
            chosen = [slicer.mrmlScene.GetNodeByID(each) if each else None for each in nodeIDs]
            self.parameterNode.applyChannels = chosen[: max(0, len(self._imageNames()) - 1)]

    def onApply(self, checked: bool = False) -> None:
        """Start with the choices of the panel."""
        self._view.attempt(self.logic.startApply)

    def onCancel(self, checked: bool = False) -> None:
        """Stop without a result."""
        if self._job is not None:
            self._job.cancel()

    def onUndo(self, checked: bool = False) -> None:
        """Take back what was applied last."""
        for segmentation in self._undoable():
            self.logic.undoApply(segmentation)
        showText(self.ui.statusLabel, _("Taken back."))
        self.update()
        self.changed()

    def _onJobEvent(self, job: Job, event: str) -> None:
        if job is not self._job:
            return
        self._view.show(job, event)
        if event != "state":
            return
        # A job of a scene that is closed has no result any more.
        if job.state == DONE and job.result:
            self._results = list(job.result)
            showText(
                self.ui.statusLabel,
                _("Done: {names}.").format(names=", ".join(each.GetName() for each in self._results)),
            )
        self.update()
        if job.isFinished:
            self.changed()

    def _chosenVolumes(self) -> list[slicer.vtkMRMLScalarVolumeNode]:
        return [each for each in self.parameterNode.applyVolumes if each is not None]

    def _offerModel(self) -> None:
        """The newest one, where the scene names none or one that this computer does not have."""
        node = self.parameterNode
        if self._cards and node.applyModel not in self._cards:
            node.applyModel = max(self._cards, key=lambda name: self._cards[name].created)

    def _imageNames(self) -> list[str]:
        """What the chosen model calls the images of a case; none where it takes one image."""
        card = self._cards.get(self.parameterNode.applyModel)
        return list(card.channels) if card is not None else []

    def _offerImages(self) -> None:
        """Once for a model of several images and a volume: those that suggest themselves, where none are chosen."""
        names, volumes = self._imageNames(), self._chosenVolumes()
        if not names or len(volumes) != 1:
            return
        case = self.parameterNode.applyModel, volumes[0].GetID()
        if case == self._offeredFor:
            return
        chosen = list(self.parameterNode.applyChannels)
        # What a scene that was opened says stays, where it fits.
        if self._offeredFor != ("", "") or problemForModel("", names, volumes[0], chosen):
            self.parameterNode.applyChannels = imagesOffered(names, volumes[0])
        self._offeredFor = case

    def _showImages(self) -> None:
        names, volumes = self._imageNames(), self._chosenVolumes()
        rows = names[1:] if len(volumes) == 1 else []
        images = [Entry(each.GetID(), each.GetName()) for each in imagesOfScene() if each not in volumes]
        chosen = list(self.parameterNode.applyChannels) if rows else []
        self._images.show(
            [_("{image}:").format(image=each) for each in rows],
            images,
            [each.GetID() if each is not None else "" for each in chosen],
        )
        showText(self.ui.imagesLabel, _caseText(names, [*volumes, *chosen]) if rows else "")

    def _undoable(self) -> list[slicer.vtkMRMLSegmentationNode]:
        return [each for each in self._results if self.logic.canUndoApply(each)]

    def _showVolumes(self) -> None:
        volumes = [Entry(each.GetID(), each.GetName()) for each in imagesOfScene()]
        self._volumes.show(volumes, [each.GetID() for each in self._chosenVolumes()])
        self.ui.volumesTable.visible = bool(volumes)
        self.ui.noVolumesLabel.visible = not volumes


def _caseText(names: list[str], images: list[slicer.vtkMRMLScalarVolumeNode | None]) -> str:
    """Which images a model takes, and that two of them seem to be exchanged."""
    text = _("The model takes {count} images of a case: {names}. The volume is {first}.").format(
        count=len(names), names=", ".join(names), first=names[0]
    )
    doubt = crossedNames(names, [each for each in images if each is not None])
    return f"{text} ⚠ {doubt}" if doubt else text


def _noModels() -> str:
    return _("There is no tuned model yet: fine-tune or import one")


def _modelTitle(name: str, card: ModelCard) -> str:
    return f"{name} ({', '.join(label.name or str(label.value) for label in card.labels)})"
