"""Widgets that show and set one parameter, by the widget's class and the parameter's type."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ctk
import qt
import slicer

from .parameter_annotations import (
    Choice,
    Decimals,
    Maximum,
    Minimum,
    SingleStep,
    WithinRange,
    first_annotation,
    split_annotations,
)

_LEAST_INT, _MOST_INT = -(2**31), 2**31 - 1


@dataclass
class Connector:
    """How to read and write the widget, and the signal that tells of changes (None: a label)."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    signal: Any = None


def make_connector(widget: Any, annotated: Any) -> Connector:
    """The connector of the widget for that type.

    Raises:
        RuntimeError: Slicer has none for the two.
    """
    kind = split_annotations(annotated)[0]
    for widgets, fits, make in _CONNECTORS:
        if type(widget) in widgets() and fits(kind):
            return make(widget, annotated)
    raise RuntimeError(f"no GUI connector from {annotated} to {type(widget).__name__}")


def _checked(widget: Any, annotated: Any) -> Connector:
    signal = widget.stateChanged if isinstance(widget, qt.QCheckBox) else widget.toggled
    widget.checkable = True if not isinstance(widget, qt.QCheckBox) else widget.checkable
    return Connector(
        lambda: widget.checked, lambda value: _assign(widget, "checked", value), signal
    )


def _assign(widget: Any, name: str, value: Any) -> None:
    setattr(widget, name, value)


def _number(widget: Any, annotated: Any) -> Connector:
    whole = split_annotations(annotated)[0] is int
    floating = isinstance(widget, qt.QDoubleSpinBox)
    decimals = first_annotation(annotated, Decimals)
    if floating and (whole or decimals):
        widget.decimals = 0 if whole else decimals.value
    step = first_annotation(annotated, SingleStep)
    if step is not None:
        widget.singleStep = step.value
    least, most = _limits(annotated)
    if isinstance(widget, qt.QSlider) and (least is None or most is None):
        raise RuntimeError("a slider needs a parameter with limits")
    endless = float("inf")
    widget.minimum = least if least is not None else (-endless if floating else _LEAST_INT)
    widget.maximum = most if most is not None else (endless if floating else _MOST_INT)
    return Connector(
        lambda: int(widget.value) if whole else widget.value,
        lambda value: _assign(widget, "value", int(value) if whole else value),
        widget.valueChanged,
    )


def _limits(annotated: Any) -> tuple[Any, Any]:
    within = first_annotation(annotated, WithinRange)
    if within is not None:
        return within.minimum, within.maximum
    least, most = first_annotation(annotated, Minimum), first_annotation(annotated, Maximum)
    return least and least.minimum, most and most.maximum


def _choice(widget: Any, annotated: Any) -> Connector:
    kind = split_annotations(annotated)[0]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        choices = list(kind)
        label = getattr(kind, "label", lambda one: one.name)
    else:
        annotation = first_annotation(annotated, Choice)
        if annotation is None:
            raise RuntimeError("a combo box needs a parameter with the annotation Choice")
        choices, label = annotation.choices, str
    widget.clear()
    for one in choices:
        widget.addItem(label(one))

    def write(value: Any) -> None:
        if value not in choices:
            raise ValueError(f"{value!r} is none of {choices}")
        widget.currentIndex = choices.index(value)

    return Connector(lambda: choices[widget.currentIndex], write, widget.currentIndexChanged)


def _line(widget: Any, annotated: Any) -> Connector:
    def write(value: str) -> None:
        # Writing moves the cursor to the end.
        if value != widget.text:
            widget.text = value

    return Connector(lambda: widget.text, write, widget.textChanged)


def _label(widget: Any, annotated: Any) -> Connector:
    return Connector(lambda: widget.text, lambda value: _assign(widget, "text", value))


def _text(widget: Any, annotated: Any) -> Connector:
    return Connector(widget.toPlainText, widget.setPlainText, widget.textChanged)


def _path(widget: Any, annotated: Any) -> Connector:
    kind = split_annotations(annotated)[0]
    return Connector(
        lambda: kind(widget.currentPath),
        lambda value: _assign(widget, "currentPath", str(value)),
        widget.currentPathChanged,
    )


def _node(widget: Any, annotated: Any) -> Connector:
    kind = split_annotations(annotated)[0]
    widget.nodeTypes = (kind().GetClassName(),)
    return Connector(widget.currentNode, widget.setCurrentNode, widget.currentNodeChanged)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _is_node(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


# Widget classes, types, and what connects them; the first that fits.
_CONNECTORS: tuple[tuple[Any, Any, Any], ...] = (
    (lambda: (qt.QCheckBox, ctk.ctkCheckBox, qt.QPushButton), lambda k: k is bool, _checked),
    (lambda: (qt.QSlider, qt.QSpinBox), lambda k: k is int, _number),
    (lambda: (qt.QDoubleSpinBox, ctk.ctkDoubleSpinBox), lambda k: k in (int, float), _number),
    (
        lambda: (qt.QComboBox, ctk.ctkComboBox),
        lambda k: k in (int, float, str, bool) or _is_enum(k),
        _choice,
    ),
    (lambda: (qt.QLineEdit,), lambda k: k is str, _line),
    (lambda: (qt.QLabel,), lambda k: k is str, _label),
    (lambda: (qt.QTextEdit,), lambda k: k is str, _text),
    (lambda: (ctk.ctkPathLineEdit,), lambda k: k in (pathlib.Path, pathlib.PurePath), _path),
    (lambda: (slicer.qMRMLNodeComboBox,), _is_node, _node),
)
