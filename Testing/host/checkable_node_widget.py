"""Slicer's combo box with a check mark before each node."""

# ruff: noqa: N801
from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt, Signal

from .node_combo_box import qMRMLNodeComboBox

_STATE = Qt.ItemDataRole.CheckStateRole


class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    checkedNodesChanged = Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._checked: list[Any] = []
        # An entry is checked by the mouse or by the space bar in the open list.
        self._combo.view().viewport().installEventFilter(self)
        self._combo.view().installEventFilter(self)

    def checkedNodes(self) -> tuple[Any, ...]:
        return tuple(node for node in self._nodes if node in self._checked)

    def uncheckedNodes(self) -> tuple[Any, ...]:
        return tuple(node for node in self._nodes if node not in self._checked)

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        return not self.checkedNodes()

    def checkState(self, node: Any) -> Qt.CheckState:
        return Qt.CheckState.Checked if node in self._checked else Qt.CheckState.Unchecked

    def setCheckState(self, node: Any, state: Qt.CheckState) -> None:
        if not isinstance(state, Qt.CheckState):
            raise ValueError(f"setCheckState: {state!r} is no Qt.CheckState")
        if node not in self._nodes or self.checkState(node) == state:
            return
        if state == Qt.CheckState.Checked:
            self._checked.append(node)
        else:
            self._checked.remove(node)
        self._show()
        self.checkedNodesChanged.emit()

    def check(self, node: Any) -> None:
        self.setCheckState(node, Qt.CheckState.Checked)

    def uncheck(self, node: Any) -> None:
        self.setCheckState(node, Qt.CheckState.Unchecked)

    def _rebuild(self) -> None:
        before = list(self._checked) if hasattr(self, "_checked") else []
        super()._rebuild()
        self._checked = [node for node in before if node in self._nodes]
        if self._checked != before:
            self._show()
            self.checkedNodesChanged.emit()

    def _show(self) -> None:
        super()._show()
        for index, node in enumerate(self._nodes):
            row = index + self._none_shown()
            self._combo.setItemData(row, self.checkState(node), _STATE)
        names = ", ".join(node.GetName() or "" for node in self.checkedNodes())
        self._combo.setToolTip(names)

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:
        view = self._combo.view()
        if watched is view.viewport() and isinstance(event, QtGui.QMouseEvent):
            if event.type() == QtCore.QEvent.Type.MouseButtonRelease:
                return self._turn(view.indexAt(event.position().toPoint()).row())
        elif event.type() == QtCore.QEvent.Type.KeyPress and event.key() == Qt.Key.Key_Space:
            return self._turn(view.currentIndex().row())
        return False

    def _turn(self, row: int) -> bool:
        position = row - self._none_shown()
        if not 0 <= position < len(self._nodes):
            return False
        node = self._nodes[position]
        if node in self._checked:
            self.uncheck(node)
        else:
            self.check(node)
        return True
