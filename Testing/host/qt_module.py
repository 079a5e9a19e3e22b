"""The module `qt` as Slicer has it: Qt's classes in one name space, with PythonQt's conventions."""

from __future__ import annotations

import sys
import types

from PySide6 import QtCore, QtGui, QtNetwork, QtWidgets

from . import dialogs, python_qt, ui_file

_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork)


def make_qt_module(interactive: bool) -> types.ModuleType:
    """Makes `import qt` possible; dialogs wait for a person only where one is there."""
    python_qt.install()
    if interactive:
        dialogs.return_as_python_qt()
    else:
        dialogs.install()
    qt = types.ModuleType("qt", __doc__)
    for source in _MODULES:
        for name in dir(source):
            # PySide6's Signal, Slot, Property … are not known to PythonQt.
            if name.startswith("Q") and isinstance(getattr(source, name), type):
                setattr(qt, name, getattr(source, name))
    qt.QUiLoader = ui_file.UiLoader
    sys.modules["qt"] = qt
    return qt
