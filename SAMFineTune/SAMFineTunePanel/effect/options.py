"""The options of the Segment Editor's effect: which model, what a click means, what becomes of the mask."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.effect.clicks import EffectClicks
from SAMFineTunePanel.effect.editor_correction import EditorCorrection
from SAMFineTunePanel.sections.panel_section import allow, showProblem, showText

_SLICES = 10
_MOST_SLICES = 1000


class EffectOptions:
    """A frame of buttons; it shows and asks, the correction does.

    Args:
        editorCorrection: the correction of what the editor has selected.
        clicks: what the mouse does.

    Attributes:
        widget: the frame.
    """

    def __init__(self, editorCorrection: EditorCorrection, clicks: EffectClicks) -> None:
        self._editorCorrection = editorCorrection
        self._clicks = clicks
        self.widget = qt.QWidget()
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        self.modelComboBox = qt.QComboBox()
        self.modelComboBox.toolTip = _("The network that answers clicks")
        self._models = [""]
        self.setModels([])
        layout.addWidget(self.modelComboBox)
        self._addPromptButtons(layout)
        self._addPropagation(layout)
        self.startButton = self._button(_("Start again"), editorCorrection.startAgain)
        layout.addWidget(self.startButton)
        self.statusLabel, self.problemLabel = _label(layout), _label(layout)
        self.moduleButton = qt.QPushButton(_("Open SAM FineTune"))
        self.moduleButton.toolTip = _("The module lists the packages and installs them")
        self.moduleButton.connect("clicked(bool)", self._onModule)
        layout.addWidget(self.moduleButton)
        self.modelComboBox.connect("currentIndexChanged(int)", self._onModel)
        self.update()

    def setModels(self, names: list[str]) -> None:
        """Offer tuned models beside the backbone as it is."""
        chosen = self.chosenModel()
        self._models = ["", *names]
        wasBlocked = self.modelComboBox.blockSignals(True)
        self.modelComboBox.clear()
        self.modelComboBox.addItems([_("starter, not tuned"), *names])
        self.modelComboBox.blockSignals(wasBlocked)
        self.chooseModel(chosen)

    def chooseModel(self, name: str) -> None:
        """Show a model as the chosen one; one that is gone gives way to the backbone."""
        wasBlocked = self.modelComboBox.blockSignals(True)
        self.modelComboBox.currentIndex = self._models.index(name) if name in self._models else 0
        self.modelComboBox.blockSignals(wasBlocked)

    def chosenModel(self) -> str:
        """Name of the model; "" for the backbone as it is."""
        return self._models[max(0, self.modelComboBox.currentIndex)]

    def update(self) -> None:
        """Show what the correction is at."""
        editing = self._editorCorrection
        session = editing.correction.session
        isReady = editing.isActive and session.state == "ready"
        waiting = "" if isReady else _("Wait until the correction is ready")
        self.positiveButton.checked = self._clicks.isPositive and not self._clicks.drawsBox
        self.negativeButton.checked = not self._clicks.isPositive and not self._clicks.drawsBox
        self.boxButton.checked = self._clicks.drawsBox
        nothing = "" if isReady and session.accepted else _("Accept a slice first")
        if isReady and session.isSingleSlice:
            nothing = _("This is a single slice: there is no other one to propagate to")
        allow(self.positiveButton, waiting, _("A left click says: the structure is here"))
        allow(self.negativeButton, waiting, _("A left click says: the structure is not here; so does Ctrl + click"))
        allow(self.boxButton, waiting, _("Drag a box around the structure with the left button"))
        allow(self.clearButton, waiting, _("Take the prompts of this slice away"))
        allow(self.acceptButton, waiting, _("Write the mask into the segment"))
        allow(self.propagateButton, waiting or nothing, _("Propagate accepted masks to the slices beyond"))
        allow(self.betweenButton, waiting or nothing, _("Fill the slices between accepted ones"))
        allow(
            self.nextButton,
            waiting or ("" if editing.model else _("Only a tuned model knows where it is uncertain")),
            _("Show the slice of which the model is least certain"),
        )
        _allowStep(self.undoButton, session.history.undoText, _("Take back: {step}"), _("Nothing to take back"))
        _allowStep(self.redoButton, session.history.redoText, _("Do again: {step}"), _("Nothing to do again"))
        self.startButton.visible = editing.isActive and not session.isOpen
        showText(self.statusLabel, editing.text)
        showProblem(self.problemLabel, editing.problem)
        self.moduleButton.visible = editing.lacksPackages

    def _addPromptButtons(self, layout: qt.QVBoxLayout) -> None:
        editing, correction = self._editorCorrection, self._editorCorrection.correction
        self.positiveButton = self._button(_("Point +"), self._toPositive, checkable=True)
        self.negativeButton = self._button(_("Point -"), self._toNegative, checkable=True)
        self.boxButton = self._button(_("Box"), self._toBox, checkable=True)
        _addRow(layout, self.positiveButton, self.negativeButton, self.boxButton)
        self.undoButton = self._button(_("Undo"), correction.undo)
        self.redoButton = self._button(_("Redo"), correction.redo)
        self.clearButton = self._button(_("Clear"), correction.clearPrompts)
        self.acceptButton = self._button(_("Accept"), editing.accept)
        _addRow(layout, self.undoButton, self.redoButton, self.clearButton, self.acceptButton)

    def _addPropagation(self, layout: qt.QVBoxLayout) -> None:
        correction = self._editorCorrection.correction
        self.slicesSpinBox = qt.QSpinBox()
        self.slicesSpinBox.setRange(1, _MOST_SLICES)
        self.slicesSpinBox.value = _SLICES
        self.slicesSpinBox.toolTip = _("How many slices to propagate accepted masks to, each way, at most")
        self.propagateButton = self._button(_("Propagate"), lambda: correction.propagate(int(self.slicesSpinBox.value)))
        self.betweenButton = self._button(_("Fill between"), correction.fillBetween)
        self.nextButton = self._button(_("Next uncertain slice"), correction.nextUncertain)
        _addRow(layout, self.propagateButton, self.slicesSpinBox, self.betweenButton)
        _addRow(layout, self.nextButton)

    def _button(self, title: str, act: Callable[[], None], checkable: bool = False) -> qt.QPushButton:
        button = qt.QPushButton(title)
        button.checkable = checkable
        button.connect("clicked(bool)", lambda checked=False: self._editorCorrection.attempt(act))
        return button

    def _toPositive(self) -> None:
        self._clicks.isPositive, self._clicks.drawsBox = True, False

    def _toNegative(self) -> None:
        self._clicks.isPositive, self._clicks.drawsBox = False, False

    def _toBox(self) -> None:
        self._clicks.drawsBox = not self._clicks.drawsBox

    def _onModule(self, checked: bool = False) -> None:
        slicer.util.selectModule("SAMFineTune")

    def _onModel(self, index: int) -> None:
        self._editorCorrection.chooseModel(self.chosenModel())


def _addRow(layout: qt.QVBoxLayout, *widgets: qt.QWidget) -> None:
    row = qt.QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    layout.addLayout(row)


def _label(layout: qt.QVBoxLayout) -> qt.QLabel:
    label = qt.QLabel()
    label.wordWrap = True
    label.textFormat = qt.Qt.PlainText
    layout.addWidget(label)
    return label


def _allowStep(button: qt.QPushButton, step: str, toolTip: str, nothing: str) -> None:
    allow(button, "" if step else nothing, toolTip.format(step=step))
