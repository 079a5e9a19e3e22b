"""The section that corrects a segment with points and boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from SAMFineTunePanel.correction.corrected_examples import addAcceptedSlices
from SAMFineTunePanel.correction.correction import Correction
from SAMFineTunePanel.correction.correction_session import OPENING, READY
from SAMFineTunePanel.correction.slice_corrections import AUTO, MODEL, NOTHING, SEGMENT
from SAMFineTunePanel.correction_display.correction_keys import CorrectionKeys
from SAMFineTunePanel.correction_display.mask_preview import MaskPreview
from SAMFineTunePanel.correction_display.prompt_markups import BOX, NEGATIVE, POSITIVE, PromptMarkups
from SAMFineTunePanel.scene.scene_pairs import volumesOfScene
from SAMFineTunePanel.sections.correction_tools import CorrectionTools
from SAMFineTunePanel.sections.panel_section import PanelSection, allow, showProblem, showText
from SAMFineTunePanel.texts.error_text import textOf
from SAMFineTunePanel.widgets.parameter_choices import ComboBoxChoice, SpinBoxChoice

if TYPE_CHECKING:
    import slicer

    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTuneLib.models.library import TunedModel


class CorrectSection(PanelSection):
    """What is corrected; start and stop; prompts, accepting, propagating, learning from it."""

    uiFile = "SAMFineTuneCorrectSection.ui"

    def __init__(self, logic: SAMFineTuneLogic) -> None:
        super().__init__(logic)
        self._isEntered = False
        self._sign = POSITIVE
        self._markups: PromptMarkups | None = None
        self._preview: MaskPreview | None = None
        self._problem = ""
        self._segment = ComboBoxChoice(self.ui.segmentComboBox, self, "correctSegment")
        self._model = ComboBoxChoice(self.ui.modelComboBox, self, "correctModel")
        self._start = ComboBoxChoice(self.ui.startComboBox, self, "correctStart")
        self._slices = SpinBoxChoice(self.ui.slicesSpinBox, self, "propagateSlices")
        self._start.setItems(
            [
                (AUTO, _("the segment, else the model")),
                (SEGMENT, _("the segment")),
                (MODEL, _("the model's own mask")),
                (NOTHING, _("nothing")),
            ]
        )
        self._model.setItems([("", _("starter, not tuned"))])
        self._tools = CorrectionTools(self.ui, logic)
        self._keys = CorrectionKeys(
            {
                "P": self.onPoint,
                "B": self.onBox,
                "X": self.onSwitchSign,
                "Return": self.onAccept,
                "Enter": self.onAccept,
                "Ctrl+Z": self.onUndo,
                "Ctrl+Y": self.onRedo,
                "N": self.onNext,
            },
            self.widget,
        )
        self._connectButtons()
        self.ui.startComboBox.connect("currentIndexChanged(int)", self.onStartFrom)
        self.correction.addListener(self._onCorrection)

    @property
    def correction(self) -> Correction:
        """The correction that the section shows; the Segment Editor's is the same."""
        return self.logic.correction

    def enter(self) -> None:
        """The panel came into view: take the keys."""
        self._isEntered = True
        self._follow()

    def offerVolume(self) -> None:
        if self.hasParameters and self.parameterNode.correctVolume is None:
            self.parameterNode.correctVolume = next(iter(volumesOfScene()), None)

    def exit(self) -> None:
        """Another module is shown: the correction stays open, but takes neither clicks nor keys."""
        self._isEntered = False
        self._letGo()

    def forgetScene(self) -> None:
        self._letGo()

    def cleanup(self) -> None:
        self._keys.turn(False)
        self._letGo()
        self.correction.removeListener(self._onCorrection)
        super().cleanup()

    def update(self) -> None:
        if not self.hasParameters:
            return
        self._showSegments()
        for choice in (self._model, self._start, self._slices):
            choice.update()
        isOpen = self.correction.session.isOpen
        self.ui.startButton.text = _("Stop correcting") if isOpen else _("Start correcting")
        allow(
            self.ui.startButton,
            "" if isOpen else self.logic.problemWithCorrecting(),
            _("End the correction; what was accepted stays")
            if isOpen
            else _("Have the network look at the volume, then correct the segment with clicks"),
        )
        busy = _("Stop correcting first") if isOpen else ""
        allow(self.ui.volumeSelector, busy, _("The image on which clicks are set"))
        allow(self.ui.segmentationSelector, busy, _("The segmentation that is corrected"))
        allow(self.ui.segmentComboBox, busy, _("The segment that is corrected"))
        allow(self.ui.modelComboBox, busy, _("The network that answers clicks"))
        allow(self.ui.startComboBox, "", _("The mask that clicks correct"))
        self.ui.toolsWidget.visible = isOpen
        self._showProgress()
        self._showTools()
        self._showStatus()

    def updateFromFiles(self, models: list[TunedModel]) -> None:
        usable = [model for model in models if model.card is not None]
        self._model.setItems([("", _("starter, not tuned")), *((model.name, model.name) for model in usable)])
        self.update()

    # What the user asks for

    def onStart(self, checked: bool = False) -> None:
        """Start with the choices of the panel, or stop."""
        if self.correction.session.isOpen:
            self.correction.close(keepWorker=False)
        else:
            self._attempt(self.logic.startCorrecting)

    def onStartFrom(self, index: int = 0) -> None:
        """Prompts start from something else."""
        if self.correction.session.state == READY and self.hasParameters:
            self._attempt(lambda: self.correction.startFrom(self.parameterNode.correctStart))

    def onPoint(self) -> None:
        """Clicks are points of the sign that was chosen last."""
        self._place(self._sign)

    def onPositive(self, checked: bool = True) -> None:
        """Clicks are points on the structure."""
        self._sign = POSITIVE
        self._place(POSITIVE if checked else "")

    def onNegative(self, checked: bool = True) -> None:
        """Clicks are points beside the structure."""
        self._sign = NEGATIVE
        self._place(NEGATIVE if checked else "")

    def onBox(self, checked: bool = True) -> None:
        """Two clicks are a box."""
        self._place(BOX if checked else "")

    def onSwitchSign(self) -> None:
        """From positive to negative points, or back."""
        self._sign = NEGATIVE if self._sign == POSITIVE else POSITIVE
        self._place(self._sign)

    def onClear(self, checked: bool = False) -> None:
        """Take the prompts of the slice away."""
        self._attempt(self.correction.clearPrompts)

    def onAccept(self, checked: bool = False) -> None:
        """Keep the mask."""
        self._attempt(self.correction.accept)

    def onUndo(self, checked: bool = False) -> None:
        """Take the last step back."""
        self._attempt(self.correction.undo)

    def onRedo(self, checked: bool = False) -> None:
        """Do the step again that was taken back last."""
        self._attempt(self.correction.redo)

    def onPropagate(self, checked: bool = False) -> None:
        """Propagate accepted masks to the slices beyond."""
        self._attempt(lambda: self.correction.propagate(self.parameterNode.propagateSlices or None))

    def onBetween(self, checked: bool = False) -> None:
        """Fill the slices between accepted ones."""
        self._attempt(self.correction.fillBetween)

    def onStop(self, checked: bool = False) -> None:
        """Break the propagation off."""
        self.correction.stop()

    def onNext(self, checked: bool = False) -> None:
        """Show the slice of which the model is least certain."""
        self._attempt(self.correction.nextUncertain)

    def onExamples(self, checked: bool = False) -> None:
        """Have accepted slices learnt from."""

        def add() -> None:
            self.correction.report(addAcceptedSlices(self.logic, self.correction))

        self._attempt(add)
        self.changed()

    def onFineTune(self, checked: bool = False) -> None:
        """Fine-tune on the examples, starting from the model at work."""

        def start() -> None:
            self.logic.fineTuneAgain()
            self.correction.report(
                _(
                    "Fine-tuning, see section Fine-tune. This correction goes on with the model that it began with; "
                    "stop and start it to have the new one."
                )
            )

        self._attempt(start)

    # The details

    def _connectButtons(self) -> None:
        for button, slot in (
            (self.ui.startButton, self.onStart),
            (self.ui.positiveButton, self.onPositive),
            (self.ui.negativeButton, self.onNegative),
            (self.ui.boxButton, self.onBox),
            (self.ui.clearButton, self.onClear),
            (self.ui.acceptButton, self.onAccept),
            (self.ui.undoButton, self.onUndo),
            (self.ui.redoButton, self.onRedo),
            (self.ui.propagateButton, self.onPropagate),
            (self.ui.betweenButton, self.onBetween),
            (self.ui.stopButton, self.onStop),
            (self.ui.nextButton, self.onNext),
            (self.ui.examplesButton, self.onExamples),
            (self.ui.fineTuneButton, self.onFineTune),
        ):
            button.connect("clicked(bool)", slot)

    def _attempt(self, act: Callable[[], None]) -> None:
        """Do what was asked for; show why where it cannot be done."""
        from SAMFineTuneLib.errors import InputError

        self._problem = ""
        try:
            act()
        except (ValueError, RuntimeError, InputError) as error:
            self._problem = textOf(error)
        self._showProblem()
        self._showTools()

    def _complain(self, problem: str) -> None:
        self._problem = problem
        self._showProblem()

    def _place(self, kind: str) -> None:
        if self._markups is not None and self.correction.session.state == READY:
            self._markups.place(kind)
        self._showPlacing()

    def _follow(self) -> None:
        """While the panel is in view, have the scene show what is open, and the keys work for it."""
        if not self.correction.session.isOpen or not self._isEntered:
            # The Segment Editor, which shows the same correction, has its own ways.
            self._letGo()
            return
        if self._markups is None:
            self._markups = PromptMarkups(self.correction, self._complain, self._onPlacing)
            self._preview = MaskPreview(self.correction)
        self._keys.turn(True)

    def _letGo(self) -> None:
        for shown in (self._markups, self._preview):
            if shown is not None:
                shown.remove()
        self._markups = self._preview = None
        self._keys.turn(False)

    def _onCorrection(self, correction: Correction, event: str) -> None:
        if event == "state":
            self._problem = ""
            self._follow()
            self.update()
            # Prepared slices come and go with it, and while it is open they cannot be deleted.
            self.filesChanged()
            if correction.session.state == READY and self._markups is not None and not self._markups.placing:
                self._place(self._sign)
        elif event == "progress":
            self._showProgress()
        elif event == "status":
            self._showStatus()
        else:
            self._showTools()

    def _onPlacing(self) -> None:
        if self._markups is not None and self._markups.placing in (POSITIVE, NEGATIVE):
            self._sign = self._markups.placing
        self._showPlacing()

    def _showPlacing(self) -> None:
        placing = self._markups.placing if self._markups is not None else ""
        self.ui.positiveButton.checked = placing == POSITIVE
        self.ui.negativeButton.checked = placing == NEGATIVE
        self.ui.boxButton.checked = placing == BOX

    def _showSegments(self) -> None:
        node = self.parameterNode.correctSegmentation
        segments = {} if node is None else _segmentNames(node)
        segmentIDs = list(segments)
        if self.parameterNode.correctSegment not in segmentIDs and not self.correction.session.isOpen:
            self.parameterNode.correctSegment = segmentIDs[0] if segmentIDs else ""
        self._segment.setItems(list(segments.items()))

    def _showProgress(self) -> None:
        done, slices = self.correction.session.embedded
        isOpening = self.correction.session.state == OPENING
        self.ui.progressBar.visible = isOpening or (self.correction.session.isOpen and done < slices)
        # Without an end, while nobody knows how long it takes.
        self.ui.progressBar.setRange(0, 0 if isOpening else max(slices, 1))
        self.ui.progressBar.value = done
        self.ui.progressBar.toolTip = _("Slices that answer clicks at once; the one in view comes first")

    def _showTools(self) -> None:
        self._tools.update()
        self._showPlacing()

    def _showStatus(self) -> None:
        if self.correction.status.text:
            # Something went well: what went wrong before is of the past.
            self._problem = ""
        showText(self.ui.statusLabel, self.correction.status.text)
        self._showProblem()

    def _showProblem(self) -> None:
        showProblem(self.ui.errorLabel, self._problem or self.correction.status.problem)


def _segmentNames(node: slicer.vtkMRMLSegmentationNode) -> dict[str, str]:
    """ID of each segment → its name."""
    segmentation = node.GetSegmentation()
    return {each: segmentation.GetSegment(each).GetName() for each in segmentation.GetSegmentIDs()}
