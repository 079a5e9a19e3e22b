"""Makes PySide6's objects behave as PythonQt's wrappers do, in place.

A property wins over a method of its name, properties are set by assignment, children are attributes
by their object names, and nothing that does not exist can be set. PySide6's own classes are
changed rather than derived from, because code compares widgets with `type(w) is qt.QCheckBox`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets
from PySide6.QtCore import Property, QObject, SignalInstance

from .signals import connect, disconnect

_QT_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork, QtUiTools)
# By name, for PySide6 makes its types when they are first asked for.
_QT_CLASSES = [
    kind
    for kind in (getattr(module, name) for module in _QT_MODULES for name in dir(module))
    if isinstance(kind, type) and issubclass(kind, QObject)
]
_HOST_PACKAGE = __name__.rpartition(".")[0]

# Each Shiboken type has a getter of its own, and only the nearest one serves an object.
_first_getters: dict[type, Callable[[Any, str], Any]] = {}
_getter_of_type: dict[type, Callable[[Any, str], Any]] = {}
_properties_of_class: dict[tuple[str, int], dict[str, QtCore.QMetaProperty]] = {}
_ui_files_loading = 0


def raw(instance: QObject, name: str) -> Any:
    """The attribute as PySide6 itself gives it."""
    kind = type(instance)
    getter = _getter_of_type.get(kind)
    if getter is None:
        getter = next(_first_getters[base] for base in kind.__mro__ if base in _first_getters)
        _getter_of_type[kind] = getter
    return getter(instance, name)


@contextmanager
def loading_ui_file() -> Iterator[None]:
    """While PySide6's loader works, which sets each child as an attribute of its parent."""
    global _ui_files_loading
    _ui_files_loading += 1
    try:
        yield
    finally:
        _ui_files_loading -= 1


def _properties(instance: QObject) -> dict[str, QtCore.QMetaProperty]:
    meta = raw(instance, "metaObject")()
    key = meta.className(), meta.propertyCount()
    if key not in _properties_of_class:
        every = (meta.property(index) for index in range(meta.propertyCount()))
        _properties_of_class[key] = {one.name(): one for one in every}
    return _properties_of_class[key]


def _dynamic_properties(instance: QObject) -> list[str]:
    return [bytes(name).decode() for name in raw(instance, "dynamicPropertyNames")()]


def _defined_in_python(kind: type, name: str) -> bool:
    """Whether the nearest definition stands in a Python class, of the host or of the module."""
    for base in kind.__mro__:
        if name in base.__dict__:
            return not base.__module__.startswith(("PySide6", "Shiboken", "builtins"))
    return False


def _stands_for_cpp(kind: type) -> bool:
    """Whether the class is Qt's, CTK's or Slicer's, so that PythonQt allows no new attributes."""
    return kind.__module__.startswith(("PySide6", _HOST_PACKAGE))


def _as_python_qt(value: Any) -> Any:
    return tuple(value) if type(value) is list else value


def _get(self: QObject, name: str) -> Any:
    if name.startswith("_"):
        return raw(self, name)
    if name == "name" and not _defined_in_python(type(self), name):
        name = "objectName"
    if _defined_in_python(type(self), name):
        value = raw(self, name)
        return _as_python_qt(value) if name in _properties(self) else value
    if name in _STAND_INS:
        stand_in = _STAND_INS[name]
        return lambda *arguments: stand_in(self, *arguments)
    if name in raw(self, "__dict__"):
        return raw(self, "__dict__")[name]
    if name in _properties(self):
        return _as_python_qt(_read_property(self, name))
    return _get_method_or_child(self, name)


def _read_property(instance: QObject, name: str) -> Any:
    capital = name[0].upper() + name[1:]
    for getter_name in ("is" + capital, name, "has" + capital):
        try:
            getter = raw(instance, getter_name)
        except AttributeError:
            continue
        if callable(getter) and not isinstance(getter, SignalInstance):
            return getter()
    return raw(instance, "property")(name)


def _get_method_or_child(instance: QObject, name: str) -> Any:
    try:
        return raw(instance, name)
    except AttributeError:
        pass
    if name in _dynamic_properties(instance):
        return raw(instance, "property")(name)
    for child in raw(instance, "children")():
        if raw(child, "objectName")() == name:
            return child
    raise AttributeError(f"{_class_name(instance)} has no attribute named '{name}'")


def _set(self: QObject, name: str, value: Any) -> None:
    if isinstance(value, SignalInstance):
        # PySide6 keeps bound signals this way.
        raw(self, "__dict__")[name] = value
        return None
    if name.startswith("_") and not type(self).__module__.startswith("PySide6"):
        return _set_raw(self, name, value)
    if _ui_files_loading and isinstance(value, QObject):
        return None
    if name == "name" and not _defined_in_python(type(self), name):
        name = "objectName"
    if _defined_in_python(type(self), name):
        return _set_raw(self, name, value)
    if name in _properties(self):
        return _write_property(self, name, value)
    if name in _dynamic_properties(self):
        raw(self, "setProperty")(name, value)
        return None
    if _stands_for_cpp(type(self)):
        raise AttributeError(
            f"'{name}' does not exist on {_class_name(self)} and creating new attributes on "
            "C++ objects is not allowed"
        )
    return _set_raw(self, name, value)


def _set_raw(instance: QObject, name: str, value: Any) -> None:
    definition = next(
        (c.__dict__[name] for c in type(instance).__mro__ if name in c.__dict__), None
    )
    if isinstance(definition, Property):
        if definition.fset is None:
            raise AttributeError(f"Property '{name}' of {_class_name(instance)} is not writable")
        definition.fset(instance, value)
    elif hasattr(type(definition), "__set__"):
        definition.__set__(instance, value)
    elif definition is not None and _stands_for_cpp(type(instance)) and not name.startswith("_"):
        raise AttributeError(f"'{name}' of {_class_name(instance)} cannot be replaced")
    else:
        raw(instance, "__dict__")[name] = value


def _write_property(instance: QObject, name: str, value: Any) -> None:
    prop = _properties(instance)[name]
    if not prop.isWritable():
        raise AttributeError(f"Property '{name}' of {_class_name(instance)} is not writable")
    refusal = AttributeError(
        f"Property '{name}' of type '{prop.typeName()}' does not accept an object of type "
        f"{type(value).__name__} ({value!r})"
    )
    if prop.isEnumType() and not isinstance(value, enum.Enum):
        raise refusal
    try:
        setter = raw(instance, "set" + name[0].upper() + name[1:])
    except AttributeError:
        if not prop.write(instance, value):
            raise refusal from None
        return
    try:
        setter(value)
    except TypeError as error:
        raise refusal from error


def _class_name(instance: QObject) -> str:
    return raw(instance, "metaObject")().className()


# What PythonQt gives to every object, in place of what PySide6 has under the name.
_STAND_INS: dict[str, Callable[..., Any]] = {
    "connect": connect,
    "disconnect": disconnect,
    "className": _class_name,
    "delete": shiboken6.delete,
}


def install() -> None:
    """Changes PySide6's classes; once is enough for a process."""
    if QObject in _first_getters:
        return
    _first_getters[QObject] = QObject.__getattribute__
    for kind in _QT_CLASSES:
        if "__getattribute__" in kind.__dict__:
            _first_getters.setdefault(kind, kind.__dict__["__getattribute__"])
        kind.__setattr__ = _set
    for kind in list(_first_getters):
        kind.__getattribute__ = _get
