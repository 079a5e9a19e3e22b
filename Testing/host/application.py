"""`slicer.app`: the parts of qSlicerApplication that modules ask for."""

# ruff: noqa: N801
from __future__ import annotations

import tempfile
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import QObject, Signal

from .checked_property import checked_property
from .file_types import CoreIOManager


class qSlicerModuleManager(QObject):
    moduleAboutToBeUnloaded = Signal(str)
    moduleLoaded = Signal(str)
    modulesLoaded = Signal("QStringList")

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._modules: dict[str, Any] = {}

    def module(self, name: str) -> Any:
        return self._modules.get(name) or getattr(slicer.modules, name.lower(), None)

    def modulesNames(self) -> list[str]:
        return [*vars(slicer.moduleNames)]

    def _add(self, module: Any) -> None:
        self._modules[module.name] = module
        self.moduleLoaded.emit(module.name)


class qSlicerApplication(QtWidgets.QApplication):
    startupCompleted = Signal()
    mrmlSceneChanged = Signal(object)
    lastWindowAboutToClose = Signal()

    def __init__(self, application_logic: Any) -> None:
        super().__init__(["Slicer"])
        self.setOrganizationName("NA-MIC")
        self.setApplicationName("Slicer")
        self._application_logic = application_logic
        self._module_manager = qSlicerModuleManager(self)
        self._io_manager = CoreIOManager()
        self._layout_manager: Any = None
        self._folder = tempfile.TemporaryDirectory(prefix="slicer_")
        self._renders_paused = 0
        self._testing = True
        self._closed = False
        self._main_window: Any = None
        # Settings of the person who runs the tests are neither read nor written.
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        for scope in (QtCore.QSettings.Scope.UserScope, QtCore.QSettings.Scope.SystemScope):
            QtCore.QSettings.setPath(
                QtCore.QSettings.Format.IniFormat, scope, self._folder.name + "/settings"
            )

    temporaryPath = checked_property(str, lambda self: self._folder.name)
    slicerHome = checked_property(str, lambda self: "")
    slicerVersion = checked_property(str, lambda self: "5.13.0")
    majorVersion = checked_property(int, lambda self: 5)
    minorVersion = checked_property(int, lambda self: 13)
    revision = checked_property(str, lambda self: "0")
    documentationBaseUrl = checked_property(
        str, lambda self: "https://slicer.readthedocs.io/en/latest/"
    )

    def moduleManager(self) -> qSlicerModuleManager:
        return self._module_manager

    def coreIOManager(self) -> CoreIOManager:
        return self._io_manager

    def ioManager(self) -> CoreIOManager:
        return self._io_manager

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def applicationLogic(self) -> Any:
        return self._application_logic

    def layoutManager(self) -> Any:
        return self._layout_manager

    def userSettings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def revisionUserSettings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def settings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def testingEnabled(self) -> bool:
        return self._testing

    def isInstalled(self) -> bool:
        return False

    def pauseRender(self) -> None:
        self._renders_paused += 1

    def resumeRender(self) -> None:
        if self._renders_paused == 0:
            raise RuntimeError("resumeRender without pauseRender")
        self._renders_paused -= 1

    def _close(self) -> None:
        """What happens when a person closes Slicer; once."""
        if self._closed:
            return
        self._closed = True
        self.lastWindowAboutToClose.emit()
        for name in list(self._module_manager._modules):
            self._module_manager.moduleAboutToBeUnloaded.emit(name)
        self.aboutToQuit.emit()
        self.processEvents()

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def restart(self) -> None:
        from . import dialogs

        dialogs.tell("restart", "")
