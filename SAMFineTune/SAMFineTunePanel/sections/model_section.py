"""The section that chooses what is tuned, and how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from SAMFineTunePanel.parameter_node import beginsAtRandom
from SAMFineTunePanel.sections.job_view import JobView
from SAMFineTunePanel.sections.panel_section import (
    PanelSection,
    allow,
    problemWithCancelling,
    problemWithStarting,
    showProblem,
    showText,
)
from SAMFineTunePanel.texts.backbone_text import backboneTitles, canBeFetched, weightsText
from SAMFineTunePanel.texts.preset_text import presetTexts, presetTitles
from SAMFineTunePanel.texts.sizes_and_times import sizeText
from SAMFineTunePanel.widgets.parameter_choices import ComboBoxChoice, SpinBoxChoice

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTuneLib.models.library import TunedModel
    from SAMFineTuneLib.weights.availability import AvailableBackbone
    from SAMFineTunePanel.jobs.job import Job

_INPUT_SIZES = (256, 384, 512, 768, 1024)


class ModelSection(PanelSection):
    """Preset, backbone with its weights, device; the rest is folded away."""

    uiFile = "SAMFineTuneModelSection.ui"

    def __init__(self, logic: SAMFineTuneLogic) -> None:
        super().__init__(logic)
        self._backbones: dict[str, AvailableBackbone] = {}
        self._weightsJob: Job | None = None
        self._weightsView = JobView(self.ui.weightsProgressBar, self.ui.weightsStatusLabel, self.ui.weightsErrorLabel)
        self._preset = ComboBoxChoice(self.ui.presetComboBox, self, "preset")
        self._backbone = ComboBoxChoice(self.ui.backboneComboBox, self, "backbone")
        self._device = ComboBoxChoice(self.ui.deviceComboBox, self, "device")
        self._method = ComboBoxChoice(self.ui.methodComboBox, self, "method")
        self._scope = ComboBoxChoice(self.ui.scopeComboBox, self, "scope")
        self._inputSize = ComboBoxChoice(self.ui.inputSizeComboBox, self, "inputSize")
        self._weightsKind = ComboBoxChoice(self.ui.weightsKindComboBox, self, "weightsKind")
        self._startFrom = ComboBoxChoice(self.ui.startFromComboBox, self, "startFrom")
        self._spinBoxes = [
            SpinBoxChoice(self.ui.rankSpinBox, self, "rank"),
            SpinBoxChoice(self.ui.stepsSpinBox, self, "steps"),
            SpinBoxChoice(self.ui.minutesSpinBox, self, "minutes"),
            SpinBoxChoice(self.ui.seedSpinBox, self, "seed"),
        ]
        self._fillFixedChoices()
        self.ui.checkpointPathEdit.connect("currentPathChanged(QString)", self.onCheckpointChosen)
        # An emptied field tells of no path, only that it has none any more.
        self.ui.checkpointPathEdit.connect("validInputChanged(bool)", self.onCheckpointValid)
        self.ui.getWeightsButton.connect("clicked(bool)", self.onGetWeights)
        self.ui.cancelWeightsButton.connect("clicked(bool)", self.onCancelWeights)

    def enter(self) -> None:
        """The panel came into view: see what there is to compute on."""
        if self.logic.hardware is None:
            self.logic.probeHardware(self._onHardware)

    def update(self) -> None:
        if not self.hasParameters:
            return
        self._fillPresets()
        self._fillDevices()
        choices: list[ComboBoxChoice | SpinBoxChoice] = [
            self._preset,
            self._backbone,
            self._device,
            self._method,
            self._scope,
            self._inputSize,
            self._weightsKind,
            self._startFrom,
            *self._spinBoxes,
        ]
        for choice in choices:
            choice.update()
        if self.ui.checkpointPathEdit.currentPath != self.parameterNode.checkpoint:
            wasBlocked = self.ui.checkpointPathEdit.blockSignals(True)
            self.ui.checkpointPathEdit.currentPath = self.parameterNode.checkpoint
            self.ui.checkpointPathEdit.blockSignals(wasBlocked)
        self._showWeights()
        self._allowAdvanced()

    def updateFromFiles(self, models: list[TunedModel]) -> None:
        # These know requests and pydantic, which are there only once the packages are.
        from SAMFineTuneLib.weights.availability import list_backbones

        self._backbones = {each.name: each for each in list_backbones()}
        self._backbone.setItems([(name, backboneTitles().get(name, name)) for name in self._backbones])
        usable = [model for model in models if model.card is not None]
        self._startFrom.setItems(
            [
                ("", _("the backbone")),
                *((model.name, _("tuned model {name}").format(name=model.name)) for model in usable),
            ]
        )
        self.update()

    def showJob(self, job: Job) -> None:
        if job.kind == "checkpoint":
            self._weightsJob = job
            self.followJob(job, self._onJobEvent)
        else:
            self._showWeights()

    def onGetWeights(self, checked: bool = False) -> None:
        """Fetch the official weights of the backbone."""
        try:
            self.logic.startWeights(self.parameterNode.backbone)
        except RuntimeError as error:
            self._weightsView.showProblem(str(error))

    def onCancelWeights(self, checked: bool = False) -> None:
        """Stop fetching; what has come stays."""
        if self._weightsJob is not None:
            self._weightsJob.cancel()

    def onCheckpointChosen(self, path: str) -> None:
        """A weights file of the user's own."""
        if self.hasParameters:
            self.parameterNode.checkpoint = path

    def onCheckpointValid(self, valid: bool) -> None:
        """The field of the weights file was filled or emptied."""
        self.onCheckpointChosen(self.ui.checkpointPathEdit.currentPath)

    @property
    def _isFetching(self) -> bool:
        return self._weightsJob is not None and not self._weightsJob.isFinished

    def _onJobEvent(self, job: Job, event: str) -> None:
        self._weightsView.show(job, event)
        self._showWeights()
        if job.isFinished and event == "state":
            self.filesChanged()

    def _onHardware(self, hardware: dict[str, Any] | None) -> None:
        self.update()

    def _fillFixedChoices(self) -> None:
        self._method.setItems(
            [
                ("auto", _("automatic")),
                ("adapter", _("Adapter")),
                ("lora", _("LoRA")),
                ("vanilla", _("vanilla: all weights")),
                ("norm", _("normalisation layers")),
                ("bias", _("biases")),
            ]
        )
        self._scope.setItems(
            [("auto", _("automatic")), ("encoder_decoder", _("encoder and decoder")), ("decoder", _("decoder alone"))]
        )
        self._weightsKind.setItems(
            [
                ("", _("as usual for the backbone")),
                ("sam", _("Segment Anything")),
                ("medsam", _("MedSAM: pixels from 0 to 1")),
                ("sslsam", _("SSLSAM of the study")),
                ("supsam", _("SupSAM of the study")),
                ("own", _("this program")),
            ]
        )
        self._inputSize.setItems(
            [(0, _("automatic")), *((size, _("{size} pixels").format(size=size)) for size in _INPUT_SIZES)]
        )

    def _fillPresets(self) -> None:
        hardware = self.logic.hardware
        if hardware is None:
            automatic = _("Suited to this computer")
        else:
            automatic = _("Suited to this computer ({preset})").format(preset=hardware["preset"])
        self._preset.setItems([("", automatic), *presetTitles().items()])
        chosen = self.parameterNode.preset or (hardware["preset"] if hardware is not None else "")
        text = presetTexts().get(chosen) or self._textWithoutHardware()
        if hardware is not None and not self.parameterNode.preset and hardware.get("why"):
            text = f"{hardware['why'][:1].upper()}{hardware['why'][1:]}. {text}"
        showText(self.ui.presetTextLabel, text)

    def _textWithoutHardware(self) -> str:
        if self.logic.isHardwareUnknown:
            return _("What this computer has could not be learnt: PyTorch does not load. Choose a preset yourself.")
        return _("Looking at what this computer has…")

    def _fillDevices(self) -> None:
        found = self.logic.hardware["devices"] if self.logic.hardware is not None else []
        devices = [(each["name"], _deviceTitle(each)) for each in found]
        self._device.setItems([("auto", _("automatic")), *(devices or [("cpu", _("processor"))])])

    def _showWeights(self) -> None:
        if not self.hasParameters:
            return
        own, random = self.parameterNode.checkpoint, beginsAtRandom(self.parameterNode)
        backbone = self._backbones.get(self.parameterNode.backbone)
        toFetch = None
        if not own and not random and backbone is not None and canBeFetched(backbone) and not backbone.present:
            toFetch = backbone
        self.ui.weightsLabel.text = weightsText(backbone, own, random)
        self.ui.getWeightsButton.visible = toFetch is not None and not self._isFetching
        self.ui.cancelWeightsButton.visible = self._isFetching
        allow(
            self.ui.cancelWeightsButton,
            problemWithCancelling(self._weightsJob, _("Nothing is being fetched")),
            _("Stop the download; what has arrived is kept, and the next try goes on from there"),
        )
        if toFetch is not None:
            self.ui.getWeightsButton.text = _("&Get the weights ({size})").format(size=sizeText(toFetch.bytes))
            allow(
                self.ui.getWeightsButton,
                problemWithStarting(self.logic),
                _("Download the official weights, licence {licence}; an interrupted download goes on").format(
                    licence=toFetch.licence
                ),
            )

    def _allowAdvanced(self) -> None:
        node = self.parameterNode
        withoutRank = "" if node.method == "lora" else _("Only LoRA has a rank")
        allow(self.ui.rankSpinBox, withoutRank, _("Size of LoRA's updates; the study used 4"))
        fromModel = _("The tuned model to start from says which") if node.startFrom else ""
        allow(self.ui.backboneComboBox, fromModel, _("The network that is tuned"))
        ofModel = _("The tuned model to start from has learnt already") if node.startFrom else ""
        allow(
            self.ui.randomWeightsCheckBox,
            ofModel,
            _("Begin with a network that has learnt nothing: for comparison, or where the weights cannot be had"),
        )
        random = beginsAtRandom(node)
        allow(
            self.ui.checkpointPathEdit,
            _("Random weights come from no file") if random else "",
            _("A weights file of your own, in place of the backbone's"),
        )
        unused = "" if node.checkpoint and not random else _("Only a weights file of your own can be of another kind")
        allow(
            self.ui.weightsKindComboBox,
            ofModel or unused,
            _("What these weights were trained as: it decides how pixels reach the network"),
        )
        missing = node.checkpoint and not random and not Path(node.checkpoint).is_file()
        showProblem(self.ui.checkpointProblemLabel, _("There is no such file.") if missing else "")


def _deviceTitle(device: dict[str, Any]) -> str:
    description = device.get("description") or device["name"]
    memory = device.get("memory_bytes")
    return f"{description}, {sizeText(memory)}" if memory else description
