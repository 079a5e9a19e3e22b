"""The CTK widgets that the module uses, with what PythonQt shows of them: their meta object.

Names without an underscore are properties, signals, slots and invokable methods of CTK's headers.
"""

# ruff: noqa: N801
from __future__ import annotations

import enum
import sys
import types
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import QEvent, QObject, Qt, Signal

from . import dialogs
from .checked_property import STRINGS, checked_property, stored_property
from .ui_file import custom_widgets

_HEADER_HEIGHT = 22
_NO_LIMIT = 16777215
_TO_PARENT = {QEvent.Type.ShowToParent, QEvent.Type.HideToParent}


class _CollapsingChildren(QObject):
    """Hides a widget's children, and knows which are to be shown again."""

    # Of the class too, for Python may clear the object while Qt still destroys the children.
    _collapsed = False

    def __init__(self, owner: QtWidgets.QWidget) -> None:
        super().__init__(owner)
        self._owner = owner
        self._wanted: list[QtWidgets.QWidget] = []
        self._acting = False

    def _set(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self._acting = True
        children = [one for one in self._owner.children() if isinstance(one, QtWidgets.QWidget)]
        if collapsed:
            self._wanted = [one for one in children if not one.isHidden()]
        for one in self._wanted:
            one.setVisible(not collapsed)
        self._acting = False

    def _watch(self, child: QObject) -> None:
        if isinstance(child, QtWidgets.QWidget):
            child.installEventFilter(self)

    def eventFilter(self, child: QObject, event: QEvent) -> bool:
        if self._collapsed and not self._acting and event.type() in _TO_PARENT:
            self._acting = True
            if event.type() == QEvent.Type.ShowToParent:
                self._wanted.append(child)
                child.setVisible(False)
            elif child in self._wanted:
                self._wanted.remove(child)
            self._acting = False
        return False


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    contentsCollapsed = Signal(bool)

    def __init__(self, *arguments: Any) -> None:
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        super().__init__(arguments[-1] if arguments and arguments[-1] != text else None)
        self._children = _CollapsingChildren(self)
        self._closed_height = 10
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, _HEADER_HEIGHT, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.toggled.connect(self._toggle)

    collapsed = checked_property(
        bool, lambda self: not self.checked, lambda self, value: self.setChecked(not value)
    )
    flat = stored_property("flat", bool, False)
    collapsedHeight = stored_property("collapsedHeight", int, 10)
    contentsLineWidth = stored_property("contentsLineWidth", int, 1)
    contentsMidLineWidth = stored_property("contentsMidLineWidth", int, 0)

    def _toggle(self, opened: bool) -> None:
        self._children._set(not opened)
        self.setMaximumHeight(_NO_LIMIT if opened else _HEADER_HEIGHT)
        self.updateGeometry()
        self.contentsCollapsed.emit(not opened)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        if event.added() and hasattr(self, "_children"):
            self._children._watch(event.child())

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < _HEADER_HEIGHT

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width, _HEADER_HEIGHT)
        style = self.style()
        style.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option, painter, self)
        arrow = "\u25be" if self.checked else "\u25b8"
        text = option.rect.adjusted(24, 0, -4, 0)
        painter.drawText(option.rect.adjusted(8, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, arrow)
        flags = int(Qt.AlignmentFlag.AlignVCenter) | int(Qt.TextFlag.TextShowMnemonic)
        style.drawItemText(painter, text, flags, self.palette, self.enabled, self.text)
        painter.end()


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*[one for one in arguments if one is not None])
        self._children = _CollapsingChildren(self)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._toggle)

    collapsed = checked_property(
        bool, lambda self: not self.checked, lambda self, value: self.setChecked(not value)
    )
    collapsedHeight = stored_property("collapsedHeight", int, 14)

    def _toggle(self, opened: bool) -> None:
        self._children._set(not opened)
        self.setMaximumHeight(_NO_LIMIT if opened else self.fontMetrics().height() + 8)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        if event.added() and hasattr(self, "_children"):
            self._children._watch(event.child())


class _PathFilters(enum.IntFlag):
    Dirs = 0x001
    Files = 0x002
    Drives = 0x004
    NoSymLinks = 0x008
    Readable = 0x010
    Writable = 0x020
    Executable = 0x040
    Hidden = 0x100


class _PathSizePolicy(enum.Enum):
    AdjustToContents = 0
    AdjustToContentsOnFirstShow = 1
    AdjustToMinimumContentsLength = 2


class ctkPathLineEdit(QtWidgets.QWidget):
    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    Dirs, Files, Drives = _PathFilters.Dirs, _PathFilters.Files, _PathFilters.Drives
    Readable, Writable = _PathFilters.Readable, _PathFilters.Writable
    Executable, Hidden = _PathFilters.Executable, _PathFilters.Hidden
    NoSymLinks = _PathFilters.NoSymLinks
    AdjustToContents = _PathSizePolicy.AdjustToContents
    AdjustToContentsOnFirstShow = _PathSizePolicy.AdjustToContentsOnFirstShow
    AdjustToMinimumContentsLength = _PathSizePolicy.AdjustToMinimumContentsLength

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._valid = False
        self._edit = QtWidgets.QLineEdit(self)
        self._browse = QtWidgets.QToolButton(self)
        self._browse.setText("…")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        layout.addWidget(self._browse)
        self.setFocusProxy(self._edit)
        self._edit.textChanged.connect(self._tell)
        self._browse.clicked.connect(self.browse)

    def _tell(self, path: str) -> None:
        """Any text is valid, but none is not: of an emptied field nobody hears the path."""
        was_valid, self._valid = self._valid, bool(path)
        if self._valid:
            self.currentPathChanged.emit(path)
        if self._valid != was_valid:
            self.validInputChanged.emit(self._valid)

    currentPath = checked_property(
        str, lambda self: self._edit.text, lambda self, path: self._edit.setText(path)
    )
    showBrowseButton = checked_property(
        bool,
        lambda self: not self._browse.isHidden(),
        lambda self, shown: self._browse.setVisible(shown),
    )
    filters = stored_property("filters", _PathFilters, _PathFilters(0x007))
    nameFilters = stored_property("nameFilters", STRINGS, [])
    settingKey = stored_property("settingKey", str, "")
    label = stored_property("label", str, "")
    showHistoryButton = stored_property("showHistoryButton", bool, True)
    sizeAdjustPolicy = stored_property(
        "sizeAdjustPolicy", _PathSizePolicy, _PathSizePolicy.AdjustToContentsOnFirstShow
    )
    minimumContentsLength = stored_property("minimumContentsLength", int, 0)

    def setCurrentPath(self, path: str) -> None:
        self._edit.setText(path)

    def browse(self) -> None:
        path = str(dialogs.ask("path", self.label, ""))
        if path:
            self._edit.setText(path)

    def retrieveHistory(self) -> None:
        """Nothing is kept between runs."""

    def addCurrentPathToHistory(self) -> None:
        """Nothing is kept between runs."""


class ctkCheckBox(QtWidgets.QCheckBox):
    pass


class ctkComboBox(QtWidgets.QComboBox):
    defaultText = stored_property("defaultText", str, "")


class ctkDoubleSpinBox(QtWidgets.QDoubleSpinBox):
    pass


class ctkCheckablePushButton(QtWidgets.QPushButton):
    checkBoxControlsButton = stored_property("checkBoxControlsButton", bool, True)
    checkBoxControlsButtonToggleState = stored_property(
        "checkBoxControlsButtonToggleState", bool, True
    )


class ctkMessageBox(QtWidgets.QMessageBox):
    dontShowAgainSettingsKey = stored_property("dontShowAgainSettingsKey", str, "")


class ctkWidgetsUtils:
    @staticmethod
    def grabWidget(widget: QtWidgets.QWidget) -> QtGui.QImage:
        return widget.grab().toImage()


def _named_only(name: str) -> type:
    """A class of CTK's that is known by name, for comparisons, but not in this host."""

    def refuse(self: Any, *arguments: Any) -> None:
        raise NotImplementedError(f"the test host has no {name}")

    return type(name, (), {"__init__": refuse})


_NAMED_ONLY = (
    "ctkColorPickerButton",
    "ctkDirectoryButton",
    "ctkDoubleRangeSlider",
    "ctkDoubleSlider",
    "ctkRangeWidget",
    "ctkSliderWidget",
)


def make_ctk_module() -> types.ModuleType:
    """Makes `import ctk` possible."""
    ctk = types.ModuleType("ctk", __doc__)
    for name, value in list(globals().items()):
        if name.startswith("ctk"):
            setattr(ctk, name, value)
            if issubclass(value, QtWidgets.QWidget):
                custom_widgets[name] = value
    for name in _NAMED_ONLY:
        setattr(ctk, name, _named_only(name))
    sys.modules["ctk"] = ctk
    return ctk
