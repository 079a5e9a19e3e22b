"""Starts the host in this process: scene, `slicer.app`, `qt`, `ctk` and Slicer's Python modules."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

# Names the folder Base/Python/slicer of a Slicer source tree. With it, Slicer's own Python modules
# are used in place of ours, to see that ours do not lie.
REAL_SOURCES = "SLICER_PYTHON"
_OWN_MODULES = {
    "slicer.i18n": ".translation",
    "slicer.ScriptedLoadableModule": ".scripted_module",
    "slicer.parameterNodeWrapper": ".parameter_node",
    "slicer.packaging": ".packaging_module",
}
# Slicer's own is a module with a panel and a network; ours serves in both ways.
_ALWAYS_OWN = {"SampleData": ".sample_data"}
_WIDGET_MODULES = (
    ".mrml_widgets",
    ".node_combo_box",
    ".checkable_node_widget",
    ".segment_widgets",
    ".module_container",
    ".application",
)


def uses_real_sources() -> bool:
    """Whether Slicer's own Python modules are to be used."""
    return bool(os.environ.get(REAL_SOURCES))


def boot(views: bool = False, interactive: bool = False) -> Any:
    """Starts the host once in this process and gives the module `slicer`.

    Args:
        views: whether to have slice, 3-D and plot views too, which render off-screen.
        interactive: for a person at the screen: dialogs and messages open and wait.
    """
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    import slicer

    if getattr(slicer, "app", None) is None:
        _start(slicer, interactive)
    if views and slicer.app.layoutManager() is None:
        from .layout import qSlicerLayoutManager

        slicer.app._layout_manager = qSlicerLayoutManager()
    return slicer


def _start(slicer: types.ModuleType, interactive: bool) -> None:
    from . import collected_errors, ctk_widgets, messages, mrml, qt_messages, qt_module
    from .spare_references import give_spare_references

    give_spare_references()
    collected_errors.collect_uncaught()
    qt_messages.install()
    qt_module.make_qt_module(interactive)
    ctk_widgets.make_ctk_module()
    importlib.import_module("slicer.util")
    scene = mrml.set_up_scene()
    _add_classes(slicer)
    slicer.app = slicer.qSlicerApplication(scene.application_logic)
    slicer.app._kept = scene
    slicer.app._testing = not interactive
    atexit.register(slicer.app._close)
    if not interactive:
        messages.install()
    _add_python_modules(slicer)


def _add_classes(slicer: types.ModuleType) -> None:
    """slicer.qMRMLNodeComboBox and all other classes of ours that PythonQt would show."""
    from PySide6.QtWidgets import QWidget

    from .ui_file import custom_widgets

    for name in _WIDGET_MODULES:
        module = importlib.import_module(name, __package__)
        for class_name, kind in vars(module).items():
            if class_name.startswith(("qMRML", "qSlicer")):
                setattr(slicer, class_name, kind)
                if issubclass(kind, QWidget):
                    custom_widgets[class_name] = kind


def _add_python_modules(slicer: types.ModuleType) -> None:
    for name, own in _ALWAYS_OWN.items():
        sys.modules[name] = importlib.import_module(own, __package__)
    if uses_real_sources():
        sources = Path(os.environ[REAL_SOURCES])
        if not (sources / "ScriptedLoadableModule.py").is_file():
            raise FileNotFoundError(f"{REAL_SOURCES}: no Slicer Python modules in {sources}")
        slicer.__path__.append(str(sources))
        for name in _OWN_MODULES:
            importlib.import_module(name)
        _forbid_installing(slicer)
        return
    for name, own in _OWN_MODULES.items():
        module = importlib.import_module(own, __package__)
        sys.modules[name] = module
        setattr(slicer, name.rpartition(".")[2], module)
    _forbid_installing(slicer)


def _forbid_installing(slicer: types.ModuleType) -> None:
    from .packaging_module import pip_install

    slicer.packaging.pip_install = pip_install
    slicer.util.pip_install = pip_install
