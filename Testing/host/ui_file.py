"""QUiLoader that knows CTK's and Slicer's widget classes and reports what it cannot make."""

from __future__ import annotations

import functools
import operator
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from . import python_qt
from .collected_errors import record

# Class name → class; ctk_widgets, mrml_widgets … fill it.
custom_widgets: dict[str, type[QtWidgets.QWidget]] = {}
# What Qt Designer itself makes of a file, not Qt's meta objects.
_NO_WIDGETS = {"Line"}
_NO_PROPERTIES = {"buddy"}


@dataclass(frozen=True)
class _EnumValue:
    """A property of a custom widget whose type Qt cannot look up."""

    widget: str
    name: str
    text: str


class UiLoader(QtUiTools.QUiLoader):
    """Loads a .ui file; unknown classes, properties and connections are errors."""

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> Any:
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        self._check_classes(root)
        connections = [
            {part.tag: part.text or "" for part in one} for one in root.iter("connection")
        ]
        # Made here, for Qt's loader can connect only what C++ knows.
        for tag in ("connections", "customwidgets"):
            for found in root.findall(tag):
                root.remove(found)
        enums = _take_enums_out(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        self._made: list[QtWidgets.QWidget] = []
        with python_qt.loading_ui_file():
            widget = super().load(buffer, parent)
        if widget is None:
            record(f"QUiLoader made no widget: {self.errorString()}")
            return None
        # The Python half of a widget lives only as long as something refers to it.
        python_qt.raw(widget, "__dict__")["_made"] = self._made
        named = {one.objectName: one for one in widget.findChildren(QtCore.QObject)}
        named[widget.objectName] = widget
        for one in enums:
            setattr(named[one.widget], one.name, _enum_value(one.text))
        _connect_all(named, connections)
        return widget

    def createWidget(
        self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = ""
    ) -> QtWidgets.QWidget:
        custom = custom_widgets.get(class_name)
        if custom is None:
            widget = super().createWidget(class_name, parent, name)
        else:
            # Qt's loader swallows exceptions raised here.
            try:
                widget = custom(parent)
                widget.setObjectName(name)
            except Exception as error:
                record(f"{class_name} '{name}' could not be made: {error!r}")
                raise
        self._made.append(widget)
        return widget

    def _check_classes(self, root: ElementTree.Element) -> None:
        known = {*self.availableWidgets(), *custom_widgets, *_NO_WIDGETS}
        for element in root.iter("widget"):
            class_name = element.get("class") or ""
            if class_name not in known:
                message = f"unknown widget class '{class_name}' ({element.get('name')})"
                record(f"QUiLoader: {message}")
                raise RuntimeError(message)
            kind = custom_widgets.get(class_name) or getattr(QtWidgets, class_name, None)
            if kind is not None:
                _check_properties(element, kind)


def _check_properties(element: ElementTree.Element, kind: type[QtWidgets.QWidget]) -> None:
    for prop in element.findall("property"):
        name = prop.get("name") or ""
        # Qt makes a dynamic property of what it does not know, which nothing ever reads.
        dynamic = prop.get("stdset") == "0" or name.startswith("Slicer") or name in _NO_PROPERTIES
        if not dynamic and kind.staticMetaObject.indexOfProperty(name) < 0:
            record(f".ui: {kind.__name__} '{element.get('name')}' has no property '{name}'")


def _take_enums_out(root: ElementTree.Element) -> list[_EnumValue]:
    taken = []
    for element in root.iter("widget"):
        custom = custom_widgets.get(element.get("class") or "")
        for prop in element.findall("property"):
            text = prop.findtext("enum") or prop.findtext("set")
            name = prop.get("name") or ""
            if custom is None or text is None or hasattr(QtWidgets.QWidget, name):
                continue
            taken.append(_EnumValue(element.get("name") or "", name, text))
            element.remove(prop)
    return taken


def _enum_value(text: str) -> Any:
    """QComboBox::AdjustToContents, or several such names joined by |."""
    parts = [part.split("::") for part in text.split("|")]
    classes = {name: custom_widgets.get(name) or getattr(QtWidgets, name) for name, *_ in parts}
    return functools.reduce(operator.or_, (getattr(classes[p[0]], p[-1]) for p in parts))


def _connect_all(named: dict[str, Any], connections: list[dict[str, str]]) -> None:
    for one in connections:
        sender, receiver = named.get(one["sender"]), named.get(one["receiver"])
        slot = getattr(receiver, one["slot"].partition("(")[0], None)
        if sender is None or slot is None:
            record(f".ui: cannot connect {one}")
        else:
            sender.connect(one["signal"], slot)
