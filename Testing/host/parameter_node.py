"""Stands for `slicer.parameterNodeWrapper`: typed access to a parameter node, bound to widgets."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk

from .parameter_annotations import (
    Choice,
    Decimals,
    Default,
    Maximum,
    Minimum,
    SingleStep,
    Validator,
    WithinRange,
    first_annotation,
)
from .parameter_gui import Connector, make_connector
from .parameter_pack import isParameterPack, parameterPack
from .parameter_serializers import Serializer, make_serializer

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Maximum",
    "Minimum",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "isParameterNodeWrapper",
    "isParameterPack",
    "parameterNodeWrapper",
    "parameterPack",
]

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Parameter:
    """One parameter of a wrapper class, as a descriptor."""

    def __init__(self, name: str, annotated: Any, owner: type) -> None:
        self.name = name
        self.annotated = annotated
        self.serializer: Serializer = make_serializer(annotated)
        default = first_annotation(annotated, Default)
        if name in owner.__dict__:
            default = Default(owner.__dict__[name])
        self.default = default or Default(self.serializer.default())

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        if wrapper is None:
            return self
        # Read once for each state of the node, so that a list stays the same object meanwhile.
        node = wrapper.parameterNode
        time, value = wrapper._read.get(self.name, (None, None))
        if time != node.GetMTime():
            if not self.serializer.is_in(node, self.name):
                self.serializer.write(node, self.name, self.default.value)
            value = self.serializer.read(node, self.name)
            wrapper._read[self.name] = node.GetMTime(), value
        return value

    def __set__(self, wrapper: Any, value: Any) -> None:
        node = wrapper.parameterNode
        with slicer.util.NodeModify(node):
            self.serializer.write(node, self.name, value)
            wrapper._read[self.name] = node.GetMTime(), self.serializer.read(node, self.name)


class _Wrapper:
    """What the decorator adds to a class."""

    parameterNode: Any
    allParameters: dict[str, _Parameter]

    def __init__(self, parameterNode: Any) -> None:
        self.__dict__["parameterNode"] = parameterNode
        self.__dict__["_read"] = {}
        self.__dict__["_guis"] = {}
        self.__dict__["_updating"] = False
        for parameter in self.allParameters.values():
            if not parameter.serializer.is_in(parameterNode, parameter.name):
                parameter.serializer.write(parameterNode, parameter.name, parameter.default.value)

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name) and name not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no parameter '{name}'")
        object.__setattr__(self, name, value)

    def default(self, name: str) -> Default:
        return self.allParameters[name].default

    def dataType(self, name: str) -> Any:
        top, _, rest = name.partition(".")
        annotated = self.allParameters[top].annotated
        return annotated.dataType(rest) if rest else annotated

    def getValue(self, name: str) -> Any:
        top, _, rest = name.partition(".")
        _check_name(self, top)
        value = getattr(self, top)
        return value.getValue(rest) if rest else value

    def setValue(self, name: str, value: Any) -> None:
        top, _, rest = name.partition(".")
        _check_name(self, top)
        if rest:
            getattr(self, top).setValue(rest, value)
        else:
            setattr(self, top, value)

    def connectGui(self, gui: Any) -> int:
        widgets = (
            gui.findChildren(qt.QWidget) if isinstance(gui, qt.QWidget) else vars(gui).values()
        )
        named = {one.property(SlicerParameterNamePropertyName): one for one in widgets}
        return self.connectParametersToGui({name: one for name, one in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        for name in mapping:
            _check_name(self, name.partition(".")[0])
        gui = _Gui(
            self, {name: make_connector(w, self.dataType(name)) for name, w in mapping.items()}
        )
        tag = max(self._guis, default=-1) + 1
        self._guis[tag] = gui
        return tag

    def disconnectGui(self, tag: int) -> None:
        gui = self._guis.pop(tag, None)
        if gui is not None:
            gui.disconnect()

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModifying: int) -> Any:
        return self.parameterNode.EndModify(wasModifying)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


class _Gui:
    """The widgets of one `connectGui`."""

    def __init__(self, wrapper: Any, connectors: dict[str, Connector]) -> None:
        self.wrapper = wrapper
        self.connectors = connectors
        self.slots: list[tuple[Any, Callable[..., None]]] = []
        for name, connector in connectors.items():
            connector.write(wrapper.getValue(name))
            if connector.signal is not None:
                slot = self._make_slot(name, connector)
                connector.signal.connect(slot)
                self.slots.append((connector.signal, slot))
        self.tag = wrapper.AddObserver(vtk.vtkCommand.ModifiedEvent, self._show)

    def _make_slot(self, name: str, connector: Connector) -> Callable[..., None]:
        def take(*ignored: Any) -> None:
            with slicer.util.NodeModify(self.wrapper):
                if not self.wrapper._updating:
                    self.wrapper.setValue(name, connector.read())

        return take

    def _show(self, *ignored: Any) -> None:
        if self.wrapper._updating:
            return
        self.wrapper._updating = True
        try:
            with slicer.util.NodeModify(self.wrapper):
                for name, connector in self.connectors.items():
                    connector.write(self.wrapper.getValue(name))
        finally:
            self.wrapper._updating = False

    def disconnect(self) -> None:
        for signal, slot in self.slots:
            signal.disconnect(slot)
        self.wrapper.RemoveObserver(self.tag)


def _check_name(wrapper: Any, name: str) -> None:
    if name not in wrapper.allParameters:
        raise ValueError(f"no parameter '{name}' among {list(wrapper.allParameters)}")


def parameterNodeWrapper(kind: Any = None) -> Any:
    """Class decorator: makes the annotated members parameters of the node given to the class."""
    if kind is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(kind, include_extras=True)
    parameters = {name: _Parameter(name, hint, kind) for name, hint in hints.items()}
    for name in parameters:
        if hasattr(_Wrapper, name):
            raise ValueError(f"'{name}' is a name of the wrapper's own")
    own = {
        name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")
    }
    return type(kind.__name__, (_Wrapper,), own | parameters | {"allParameters": parameters})


def isParameterNodeWrapper(kind: Any) -> bool:
    return isinstance(kind, _Wrapper) or (isinstance(kind, type) and issubclass(kind, _Wrapper))
