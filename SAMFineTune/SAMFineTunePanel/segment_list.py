"""A checkable list of the segments of a segmentation, with their colours."""

from __future__ import annotations

from collections.abc import Callable

import qt

from SAMFineTunePanel.table_rows import layOutColumns

_SWATCH = 12
_MOST_LINES = 5


class SegmentList:
    """Ticks say which segments are chosen; at least one stays.

    Args:
        table: a table widget with one column.
        onChosen: called with the IDs of the ticked segments when the user changes them, with [] for all.
    """

    def __init__(self, table, onChosen: Callable[[list[str]], None]) -> None:
        self._table = table
        self._onChosen = onChosen
        self._shown: tuple = ()
        layOutColumns(table, (0,))
        table.horizontalHeader().setVisible(False)
        table.connect("itemChanged(QTableWidgetItem*)", self._onItemChanged)

    @property
    def count(self) -> int:
        """How many segments there are."""
        return len(self._shown[1]) if self._shown else 0

    def show(self, segmentation, chosenIDs: list[str]) -> None:
        """Show the segments of a segmentation node; an empty list of chosen ones means all."""
        shown = (segmentation.GetID(), _segments(segmentation), tuple(chosenIDs)) if segmentation is not None else ()
        if shown == self._shown:
            return
        self._shown = shown
        wasBlocked = self._table.blockSignals(True)
        self._table.setRowCount(self.count)
        for row in range(self.count):
            segmentID, name, colour = shown[1][row]
            self._table.setItem(row, 0, _item(segmentID, name, colour, not chosenIDs or segmentID in chosenIDs))
        self._table.blockSignals(wasBlocked)
        lines = sum(self._table.rowHeight(row) for row in range(min(self.count, _MOST_LINES)))
        self._table.setFixedHeight(lines + 2 * self._table.frameWidth)

    def _onItemChanged(self, item) -> None:
        items = [self._table.item(row, 0) for row in range(self._table.rowCount)]
        ticked = [each.data(qt.Qt.UserRole) for each in items if each.checkState() == qt.Qt.Checked]
        if not ticked:
            wasBlocked = self._table.blockSignals(True)
            item.setCheckState(qt.Qt.Checked)
            self._table.blockSignals(wasBlocked)
            return
        self._onChosen(ticked if len(ticked) < len(items) else [])


def _segments(segmentation) -> tuple:
    every = segmentation.GetSegmentation()
    segments = ((segmentID, every.GetSegment(segmentID)) for segmentID in every.GetSegmentIDs())
    return tuple((segmentID, each.GetName(), tuple(each.GetColor())) for segmentID, each in segments)


def _item(segmentID: str, name: str, colour: tuple[float, float, float], ticked: bool):
    item = qt.QTableWidgetItem(name)
    item.setData(qt.Qt.UserRole, segmentID)
    item.setToolTip(name)
    item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
    item.setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
    swatch = qt.QPixmap(_SWATCH, _SWATCH)
    swatch.fill(qt.QColor.fromRgbF(*colour))
    item.setIcon(qt.QIcon(swatch))
    return item
