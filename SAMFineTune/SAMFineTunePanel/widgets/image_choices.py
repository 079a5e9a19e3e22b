"""Combo boxes that choose the further images of a case, one for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from SAMFineTunePanel.widgets.ticked_list import Entry


class ImageChoices:
    """A row for each further image: its label, and a combo box with the images that can be chosen.

    Args:
        rows: label and combo box of each row.
        onChosen: called with the keys of what is chosen, "" for none, when the user changes it.
    """

    def __init__(self, rows: Sequence[tuple[qt.QLabel, qt.QComboBox]], onChosen: Callable[[list[str]], None]) -> None:
        self._rows = rows
        self._onChosen = onChosen
        self._entries: tuple[Entry, ...] | None = None
        for _label, comboBox in rows:
            comboBox.connect("currentIndexChanged(int)", self._onIndexChanged)

    def show(self, titles: Sequence[str], entries: Sequence[Entry], chosen: Sequence[str]) -> None:
        """Show a row for each title, with these images to choose from; the keys of those chosen, "" for none."""
        if self._entries != tuple(entries):
            self._entries = tuple(entries)
            for _label, comboBox in self._rows:
                self._fill(comboBox, entries)
        for number, (label, comboBox) in enumerate(self._rows):
            label.visible = comboBox.visible = number < len(titles)
            if number < len(titles) and label.text != titles[number]:
                label.text = titles[number]
            key = chosen[number] if number < len(chosen) else ""
            wasBlocked = comboBox.blockSignals(True)
            comboBox.currentIndex = max(0, comboBox.findData(key))
            comboBox.blockSignals(wasBlocked)

    @staticmethod
    def _fill(comboBox: qt.QComboBox, entries: Sequence[Entry]) -> None:
        wasBlocked = comboBox.blockSignals(True)
        comboBox.clear()
        comboBox.addItem(_("none"), "")
        for entry in entries:
            comboBox.addItem(entry.name, entry.key)
        comboBox.blockSignals(wasBlocked)

    def _onIndexChanged(self, index: int) -> None:
        # Not whether a box is in view: nothing is while the section is folded.
        boxes = [comboBox for label, comboBox in self._rows]
        self._onChosen([box.itemData(box.currentIndex) or "" for box in boxes])
