"""A list of things to tick, such as the segments of a segmentation or the volumes of a scene."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import qt

from SAMFineTunePanel.widgets.table_rows import layOutColumns

_SWATCH = 12
_MOST_LINES = 5


@dataclass(frozen=True)
class Entry:
    """A thing to tick.

    Attributes:
        key: what tells it from others, such as an ID.
        name: what the user calls it.
        colour: of the swatch in front of it; None for no swatch.
    """

    key: str
    name: str
    colour: tuple[float, float, float] | None = None


class TickedList:
    """Ticks say what is chosen.

    Args:
        table: a table widget with one column.
        onChosen: called with the keys of all that is ticked when the user changes it.
        keepsOne: whether the last tick cannot be taken away.
    """

    def __init__(self, table: qt.QTableWidget, onChosen: Callable[[list[str]], None], keepsOne: bool = False) -> None:
        self._table = table
        self._onChosen = onChosen
        self._keepsOne = keepsOne
        self._entries: tuple[Entry, ...] = ()
        # None until something was shown.
        self._ticked: frozenset[str] | None = None
        layOutColumns(table, (0,))
        table.horizontalHeader().setVisible(False)
        table.connect("itemChanged(QTableWidgetItem*)", self._onItemChanged)

    @property
    def count(self) -> int:
        """How many things there are."""
        return len(self._entries)

    def show(self, entries: Collection[Entry], ticked: Collection[str]) -> None:
        """Show these things, those of the given keys ticked."""
        shown = (tuple(entries), frozenset(ticked))
        if shown == (self._entries, self._ticked):
            return
        self._entries, self._ticked = shown
        wasBlocked = self._table.blockSignals(True)
        self._table.setRowCount(self.count)
        for row, entry in enumerate(shown[0]):
            self._table.setItem(row, 0, _item(entry, entry.key in shown[1]))
        self._table.blockSignals(wasBlocked)
        lines = sum(self._table.rowHeight(row) for row in range(min(self.count, _MOST_LINES)))
        self._table.setFixedHeight(lines + 2 * self._table.frameWidth)

    def _onItemChanged(self, item: qt.QTableWidgetItem) -> None:
        items = [self._table.item(row, 0) for row in range(self._table.rowCount)]
        ticked = [each.data(qt.Qt.UserRole) for each in items if each.checkState() == qt.Qt.Checked]
        if self._keepsOne and not ticked:
            wasBlocked = self._table.blockSignals(True)
            item.setCheckState(qt.Qt.Checked)
            self._table.blockSignals(wasBlocked)
            return
        # What the user sees now is no longer what was shown.
        self._ticked = frozenset(ticked)
        self._onChosen(ticked)


def _item(entry: Entry, ticked: bool) -> qt.QTableWidgetItem:
    item = qt.QTableWidgetItem(entry.name)
    item.setData(qt.Qt.UserRole, entry.key)
    item.setToolTip(entry.name)
    item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
    item.setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
    if entry.colour is not None:
        swatch = qt.QPixmap(_SWATCH, _SWATCH)
        swatch.fill(qt.QColor.fromRgbF(*entry.colour))
        item.setIcon(qt.QIcon(swatch))
    return item
