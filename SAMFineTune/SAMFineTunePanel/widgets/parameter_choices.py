"""Keeps combo boxes and spin boxes and the parameter node in step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import qt

    from SAMFineTunePanel.parameter_node import SAMFineTuneParameterNode


class ShowsParameters(Protocol):
    """A part of the panel that shows a parameter node while the scene has one."""

    @property
    def hasParameters(self) -> bool:
        """Whether there is a parameter node at present."""

    @property
    def parameterNode(self) -> SAMFineTuneParameterNode:
        """The parameter node; to be asked for only while there is one."""


class ComboBoxChoice:
    """A combo box whose items have a text for the user and a value for the parameter node.

    Args:
        comboBox: its items are set here.
        section: whose parameter node is meant.
        parameterName: of a str or int parameter.
    """

    def __init__(self, comboBox: qt.QComboBox, section: ShowsParameters, parameterName: str) -> None:
        self._comboBox = comboBox
        self._section = section
        self._parameterName = parameterName
        comboBox.connect("currentIndexChanged(int)", self._onIndexChanged)

    def setItems(self, items: Sequence[tuple[object, str]]) -> None:
        """Offer these (value, text); what the parameter node says stays chosen."""
        offered = list(zip(self._values(), map(self._comboBox.itemText, range(self._comboBox.count)), strict=True))
        if offered != list(items):
            wasBlocked = self._comboBox.blockSignals(True)
            self._comboBox.clear()
            for value, text in items:
                self._comboBox.addItem(text, value)
            self._comboBox.blockSignals(wasBlocked)
        self.update()

    def update(self) -> None:
        """Show what the parameter node says."""
        if not self._section.hasParameters:
            return
        value = getattr(self._section.parameterNode, self._parameterName)
        values = self._values()
        wasBlocked = self._comboBox.blockSignals(True)
        if value and value not in values:
            # A scene from another computer may name what this one does not have.
            self._comboBox.addItem(str(value), value)
            values.append(value)
        self._comboBox.currentIndex = values.index(value) if value in values else -1
        self._comboBox.blockSignals(wasBlocked)

    def _values(self) -> list:
        return [self._comboBox.itemData(index) for index in range(self._comboBox.count)]

    def _onIndexChanged(self, index: int) -> None:
        if self._section.hasParameters and index >= 0:
            setattr(self._section.parameterNode, self._parameterName, self._comboBox.itemData(index))


class SpinBoxChoice:
    """A spin box that shows a number of the parameter node."""

    def __init__(self, spinBox: qt.QAbstractSpinBox, section: ShowsParameters, parameterName: str) -> None:
        self._spinBox = spinBox
        self._section = section
        self._parameterName = parameterName
        isWhole = spinBox.inherits("QSpinBox")
        spinBox.keyboardTracking = False
        spinBox.connect("valueChanged(int)" if isWhole else "valueChanged(double)", self._onValueChanged)

    def update(self) -> None:
        """Show what the parameter node says."""
        if not self._section.hasParameters:
            return
        value = getattr(self._section.parameterNode, self._parameterName)
        if self._spinBox.value != value:
            wasBlocked = self._spinBox.blockSignals(True)
            self._spinBox.value = value
            self._spinBox.blockSignals(wasBlocked)

    def _onValueChanged(self, value: float) -> None:
        if self._section.hasParameters:
            setattr(self._section.parameterNode, self._parameterName, value)
