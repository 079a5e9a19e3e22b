"""Keeps combo boxes and spin boxes and the parameter node in step."""

from __future__ import annotations

from collections.abc import Sequence

import qt


class ComboBoxChoice:
    """A combo box whose items have a text for the user and a value for the parameter node.

    Args:
        comboBox: its items are set here.
        section: whose parameter node is meant.
        parameterName: of a str or int parameter.
    """

    def __init__(self, comboBox, section, parameterName: str) -> None:
        self._comboBox = comboBox
        self._section = section
        self._parameterName = parameterName
        comboBox.connect("activated(int)", self._onActivated)

    @property
    def value(self):
        """The value of the item shown; None when there is none."""
        index = self._comboBox.currentIndex
        return self._comboBox.itemData(index) if index >= 0 else None

    def setItems(self, items: Sequence[tuple[object, str]]) -> None:
        """Offer these (value, text); what the parameter node says stays chosen."""
        offered = [
            (self._comboBox.itemData(index), self._comboBox.itemText(index))
            for index in range(self._comboBox.count)]
        if offered != list(items):
            self._comboBox.clear()
            for value, text in items:
                self._comboBox.addItem(text, value)
        self.update()

    def update(self) -> None:
        """Show what the parameter node says."""
        if self._section.parameterNode is None:
            return
        value = getattr(self._section.parameterNode, self._parameterName)
        values = [self._comboBox.itemData(index) for index in range(self._comboBox.count)]
        if value not in values and self._comboBox.count:
            # A scene from another computer may name what this one does not have.
            self._comboBox.addItem(str(value), value)
            values.append(value)
        if values:
            self._comboBox.currentIndex = values.index(value)

    def _onActivated(self, index: int) -> None:
        if self._section.parameterNode is not None:
            setattr(self._section.parameterNode, self._parameterName, self._comboBox.itemData(index))


class SpinBoxChoice:
    """A spin box that shows a number of the parameter node."""

    def __init__(self, spinBox, section, parameterName: str) -> None:
        self._spinBox = spinBox
        self._section = section
        self._parameterName = parameterName
        isWhole = isinstance(spinBox, qt.QSpinBox)
        spinBox.keyboardTracking = False
        spinBox.connect("valueChanged(int)" if isWhole else "valueChanged(double)", self._onValueChanged)

    def update(self) -> None:
        """Show what the parameter node says."""
        if self._section.parameterNode is None:
            return
        value = getattr(self._section.parameterNode, self._parameterName)
        if self._spinBox.value != value:
            wasBlocked = self._spinBox.blockSignals(True)
            self._spinBox.value = value
            self._spinBox.blockSignals(wasBlocked)

    def _onValueChanged(self, value) -> None:
        if self._section.parameterNode is not None:
            setattr(self._section.parameterNode, self._parameterName, value)
