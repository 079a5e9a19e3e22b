"""Slicer's widgets that list and choose the segments of a segmentation."""

# ruff: noqa: N801
from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt, Signal

from .checked_property import checked_property, stored_property
from .mrml_widgets import Observations, qMRMLWidget
from .node_combo_box import qMRMLNodeComboBox

_COLOUR, _NAME = 0, 1
_ID = Qt.ItemDataRole.UserRole


def _segments(node: Any) -> list[tuple[str, Any]]:
    if node is None:
        return []
    segmentation = node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(i) for i in range(segmentation.GetNumberOfSegments())]
    return [(one, segmentation.GetSegment(one)) for one in ids]


def _observe_segments(observations: Observations, node: Any, callback: Any) -> None:
    s = slicer.vtkSegmentation
    events = (s.SegmentAdded, s.SegmentRemoved, s.SegmentModified, s.SegmentsOrderModified)
    observations._replace([] if node is None else [node.GetSegmentation()], events, callback)


class qMRMLSegmentsTableView(qMRMLWidget):
    selectionChanged = Signal(QtCore.QItemSelection, QtCore.QItemSelection)
    segmentAboutToBeModified = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._observations = Observations(self)
        self._table = QtWidgets.QTableWidget(0, 2, self)
        self._table.setHorizontalHeaderLabels(["Color", "Name"])
        self._table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.verticalHeader().setVisible(False)
        no_editing = QtWidgets.QAbstractItemView.EditTrigger.NoEditTriggers
        self._table.setEditTriggers(no_editing)
        self._table.selectionModel().selectionChanged.connect(self.selectionChanged.emit)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self.setFocusProxy(self._table)

    headerVisible = checked_property(
        bool,
        lambda self: not self._table.horizontalHeader().isHidden(),
        lambda self, shown: self._table.horizontalHeader().setVisible(shown),
    )
    selectionMode = checked_property(
        int,
        lambda self: int(self._table.selectionMode.value),
        lambda self, mode: self.setSelectionMode(mode),
    )
    readOnly = stored_property("readOnly", bool, False)
    visibilityColumnVisible = stored_property("visibilityColumnVisible", bool, True)
    colorColumnVisible = stored_property("colorColumnVisible", bool, True)
    opacityColumnVisible = stored_property("opacityColumnVisible", bool, True)
    statusColumnVisible = stored_property("statusColumnVisible", bool, False)
    layerColumnVisible = stored_property("layerColumnVisible", bool, False)
    filterBarVisible = stored_property("filterBarVisible", bool, False)
    textFilter = stored_property("textFilter", str, "")
    jumpToSelectedSegmentEnabled = stored_property("jumpToSelectedSegmentEnabled", bool, False)
    segmentCount = checked_property(int, lambda self: len(_segments(self._node)))

    def segmentationNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        if node is not None and not node.IsA("vtkMRMLSegmentationNode"):
            node = None
        self._node = node
        _observe_segments(self._observations, node, self._fill)
        self._fill()

    def setSelectionMode(self, mode: int) -> None:
        self._table.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode(int(mode)))

    def setHeaderVisible(self, shown: bool) -> None:
        self.headerVisible = shown

    def setReadOnly(self, read_only: bool) -> None:
        self.readOnly = read_only

    def tableWidget(self) -> QtWidgets.QTableView:
        return self._table

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        rows = sorted(index.row() for index in self._table.selectionModel().selectedRows())
        return tuple(self.segmentIDForRow(row) for row in rows)

    def setSelectedSegmentIDs(self, ids: Any) -> None:
        self._table.clearSelection()
        select = QtCore.QItemSelectionModel.SelectionFlag
        model = self._table.selectionModel()
        for row in range(self._table.rowCount):
            if self.segmentIDForRow(row) in ids:
                index = self._table.model().index(row, 0)
                model.select(index, select.Select | select.Rows)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def displayedSegmentIDs(self) -> tuple[str, ...]:
        return tuple(one for one, _ in _segments(self._node))

    def segmentIDForRow(self, row: int) -> str:
        return str(self._table.item(row, _NAME).data(_ID))

    def rowForSegmentID(self, segment_id: str) -> int:
        ids = self.displayedSegmentIDs()
        return ids.index(segment_id) if segment_id in ids else -1

    def _fill(self, *ignored: Any) -> None:
        selected = self.selectedSegmentIDs() if self._table.rowCount else ()
        segments = _segments(self._node)
        self._table.setRowCount(len(segments))
        for row, (segment_id, segment) in enumerate(segments):
            colour = QtWidgets.QTableWidgetItem("")
            colour.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            name = QtWidgets.QTableWidgetItem(segment.GetName())
            name.setData(_ID, segment_id)
            self._table.setItem(row, _COLOUR, colour)
            self._table.setItem(row, _NAME, name)
        self.setSelectedSegmentIDs(selected)


class qMRMLSegmentSelectorWidget(qMRMLWidget):
    currentNodeChanged = Signal((object,), (bool,))
    currentSegmentChanged = Signal(str)
    segmentSelectionChanged = Signal("QStringList")
    nodeAboutToBeEdited = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._observations = Observations(self)
        self._last_segment = ""
        self._node_combo = qMRMLNodeComboBox(self)
        self._node_combo.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._node_combo.addEnabled = False
        self._node_combo.removeEnabled = False
        self._segment_combo = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._node_combo)
        layout.addWidget(self._segment_combo)
        self._node_combo.currentNodeChanged.connect(self._take_node)
        self._segment_combo.currentIndexChanged.connect(self._tell)

    def _fill_again(self) -> None:
        self._fill()

    noneEnabled = stored_property("noneEnabled", bool, False, _fill_again)
    editEnabled = stored_property("editEnabled", bool, False)
    selectNodeUponCreation = stored_property("selectNodeUponCreation", bool, True)
    horizontalLayout = stored_property("horizontalLayout", bool, True)
    segmentationNodeSelectorVisible = checked_property(
        bool,
        lambda self: not self._node_combo.isHidden(),
        lambda self, shown: self._node_combo.setVisible(shown),
    )

    def setMRMLScene(self, scene: Any) -> None:
        self._node_combo.setMRMLScene(scene)
        super().setMRMLScene(scene)

    def currentNode(self) -> Any:
        return self._node_combo.currentNode()

    def currentNodeID(self) -> str:
        return self._node_combo.currentNodeID

    def setCurrentNode(self, node: Any) -> None:
        self._node_combo.setCurrentNode(node)

    def setCurrentNodeID(self, node_id: str) -> None:
        self._node_combo.setCurrentNodeID(node_id)

    def segmentIDs(self) -> tuple[str, ...]:
        return tuple(one for one, _ in _segments(self.currentNode()))

    def currentSegmentID(self) -> str:
        return str(self._segment_combo.currentData or "")

    def setCurrentSegmentID(self, segment_id: str) -> None:
        index = self._segment_combo.findData(segment_id)
        if index >= 0:
            self._segment_combo.setCurrentIndex(index)

    def _take_node(self, node: Any) -> None:
        _observe_segments(self._observations, node, self._fill)
        self._fill()
        self.currentNodeChanged.emit(node)
        self.currentNodeChanged[bool].emit(node is not None)

    def _fill(self, *ignored: Any) -> None:
        kept = self.currentSegmentID()
        self._segment_combo.blockSignals(True)
        self._segment_combo.clear()
        if self.noneEnabled:
            self._segment_combo.addItem("None", "")
        for segment_id, segment in _segments(self.currentNode()):
            self._segment_combo.addItem(segment.GetName(), segment_id)
        self.setCurrentSegmentID(kept)
        self._segment_combo.blockSignals(False)
        self._tell()

    def _tell(self, *ignored: Any) -> None:
        if self.currentSegmentID() != self._last_segment:
            self._last_segment = self.currentSegmentID()
            self.currentSegmentChanged.emit(self._last_segment)
