"""What Slicer's module factory makes of a scripted module: its container and its panel."""

# ruff: noqa: N801
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from .checked_property import checked_property
from .mrml import register_module
from .mrml_widgets import qSlicerWidget


class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
    """The panel's container; `self()` is the module's own widget object."""

    def __init__(self, module_name: str) -> None:
        super().__init__()
        self._module_name = module_name
        self._entered = False
        self.setLayout(QtWidgets.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)
        self._make()

    isEntered = checked_property(bool, lambda self: self._entered)

    def self(self) -> Any:
        return self._python

    def enter(self) -> None:
        self._entered = True
        getattr(self._python, "enter", lambda: None)()

    def exit(self) -> None:
        self._entered = False
        getattr(self._python, "exit", lambda: None)()

    def reload(self) -> None:
        # As in Slicer: a panel that is in view is made anew, and not entered again.
        self._make()

    def _make(self) -> None:
        name = self._module_name + "Widget"
        self._python = getattr(sys.modules[self._module_name], name)(self)
        setattr(slicer.modules, name, self._python)
        self._python.setup()


class qSlicerScriptedLoadableModule(QtCore.QObject):
    """`ScriptedLoadableModule.parent`."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self._name, self._path = name, path
        self._properties: dict[str, Any] = {}
        self._widget: qSlicerScriptedLoadableModuleWidget | None = None
        self._logic = slicer.vtkSlicerScriptedLoadableModuleLogic()

    name = property(lambda self: self._name)
    path = property(lambda self: self._path)

    def logic(self) -> Any:
        return self._logic

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def widgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        if self._widget is None:
            self._widget = qSlicerScriptedLoadableModuleWidget(self._name)
        return self._widget


def _module_property(name: str) -> property:
    return property(
        lambda self: self._properties.get(name),
        lambda self, value: self._properties.__setitem__(name, value),
    )


for _name in (
    "title",
    "categories",
    "dependencies",
    "contributors",
    "helpText",
    "acknowledgementText",
    "icon",
    "hidden",
    "index",
    "associatedNodeTypes",
    "widgetRepresentationCreationEnabled",
):
    setattr(qSlicerScriptedLoadableModule, _name, _module_property(_name))


def load_module(path: Path | str) -> qSlicerScriptedLoadableModule:
    """Loads a scripted module's file as Slicer does when it starts; the panel is not made yet."""
    path = Path(path).resolve()
    name = path.stem
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python module")
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code
    spec.loader.exec_module(code)
    for ending in ("Widget", "Logic", "Test"):
        if not hasattr(code, name + ending):
            raise ImportError(f"{path} has no class {name}{ending}")
    container = qSlicerScriptedLoadableModule(name, str(path))
    instance = getattr(code, name)(container)
    register_module(name, container)
    setattr(slicer.modules, name + "Instance", instance)
    slicer.app.moduleManager()._add(container)
    return container
