"""Rows of text in a table widget."""

from __future__ import annotations

from collections.abc import Sequence

import qt


def setRow(table: qt.QTableWidget, row: int, texts: Sequence[str], toolTip: str = "") -> None:
    """Write a row; cells that are cut off tell the whole in their tooltip."""
    for column, text in enumerate(texts):
        item = table.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem()
            table.setItem(row, column, item)
        if item.text() != text:
            item.setText(text)
        item.setToolTip(toolTip or text)


def selectedRow(table: qt.QTableWidget) -> int:
    """The selected row, or -1."""
    indexes = table.selectionModel().selectedRows()
    return indexes[0].row() if indexes else -1


def layOutColumns(table: qt.QTableWidget, stretched: Sequence[int]) -> None:
    """Some columns share the room that the others leave; rows are as high as a line of text needs."""
    header = table.horizontalHeader()
    header.setHighlightSections(False)
    for column in range(table.columnCount):
        mode = qt.QHeaderView.Stretch if column in stretched else qt.QHeaderView.ResizeToContents
        header.setSectionResizeMode(column, mode)
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 8)
