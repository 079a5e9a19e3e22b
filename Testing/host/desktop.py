"""Slicer's main window as far as a module sees it: the module's panel, the views, a status bar."""

# ruff: noqa: N801
from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Qt, Signal

from .boot import boot
from .checked_property import checked_property

PANEL_WIDTH = 420


class qSlicerModuleSelectorToolBar(QtWidgets.QToolBar):
    moduleSelected = Signal(str)

    def __init__(self, panels: QtWidgets.QStackedWidget) -> None:
        super().__init__()
        self._panels = panels
        self._selected = ""

    selectedModule = checked_property(str, lambda self: self._selected)

    def selectModule(self, name: str) -> None:
        module = slicer.app.moduleManager().module(name)
        if module is None or not hasattr(module, "widgetRepresentation"):
            return
        if self._selected:
            slicer.app.moduleManager().module(self._selected).widgetRepresentation().exit()
        self._selected = name
        panel = module.widgetRepresentation()
        area = self._area(panel)
        self._panels.setCurrentWidget(area)
        panel.enter()
        self.moduleSelected.emit(name)

    def _area(self, panel: QtWidgets.QWidget) -> QtWidgets.QScrollArea:
        for index in range(self._panels.count):
            if self._panels.widget(index).widget() is panel:
                return self._panels.widget(index)
        area = QtWidgets.QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        # A panel that is wider than its place is cut off, which a picture then shows.
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        area.setWidget(panel)
        self._panels.addWidget(area)
        return area


class qSlicerMainWindow(QtWidgets.QMainWindow):
    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("3D Slicer (test host)")
        panels = QtWidgets.QStackedWidget()
        self._selector = qSlicerModuleSelectorToolBar(panels)
        self._selector.setVisible(False)
        self.addToolBar(self._selector)
        splitter = QtWidgets.QSplitter(Qt.Orientation.Horizontal)
        splitter.addWidget(panels)
        splitter.addWidget(boot(views=True).app.layoutManager())
        splitter.setStretchFactor(1, 1)
        self.setCentralWidget(splitter)
        self._splitter = splitter
        self.statusBar()
        self.resize(1280, 860)
        splitter.setSizes([PANEL_WIDTH, 860])

    def moduleSelector(self) -> qSlicerModuleSelectorToolBar:
        return self._selector

    def screenshot(self, path: Path | str) -> Path:
        """Writes a picture of the whole window, once everything is drawn."""
        settle()
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.grab().save(str(path)):
            raise OSError(f"no picture could be written to {path}")
        return path


def settle(rounds: int = 5) -> None:
    """Lets Qt lay out, draw and run what is due."""
    for _ in range(rounds):
        slicer.app.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 50)


def main_window(module: Any = None) -> qSlicerMainWindow:
    """The main window, shown, with the module's panel at the left and the views at the right."""
    boot(views=True)
    window = slicer.util.mainWindow() or qSlicerMainWindow()
    slicer.app._main_window = window
    window.show()
    if module is not None:
        window.moduleSelector().selectModule(module.name)
    settle()
    return window
