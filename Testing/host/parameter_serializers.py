"""How values are kept in a vtkMRMLScriptedModuleNode: the same names and texts as Slicer's own.

A list `x` is `x.len` and `x.0`, `x.1` …; a pack `p` with a member `m` is `p.m`; a node is a
reference with the parameter's name, beside an empty parameter that tells it is there.
"""

from __future__ import annotations

import enum
import pathlib
import typing
from typing import Any

import slicer

from .observed_list import ObservedList
from .parameter_annotations import Validator, split_annotations


class Serializer:
    """Keeps one type; subclasses say how."""

    validators: list[Validator]

    def __init__(self, accepted: type | tuple[type, ...] | None = None) -> None:
        self.accepted = accepted
        self.validators = []

    def default(self) -> Any:
        raise NotImplementedError

    def validate(self, value: Any) -> None:
        if self.accepted is not None and not isinstance(value, self.accepted):
            raise TypeError(f"{value!r} is not of type {self.accepted}")
        for one in self.validators:
            one.validate(value)

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        self.put(node, name, value)

    def put(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, self.text(value))

    def text(self, value: Any) -> str:
        return str(value)

    def read(self, node: Any, name: str) -> Any:
        raise NotImplementedError

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)


class PlainSerializer(Serializer):
    """int, float, str and paths: the text of the value."""

    def __init__(self, kind: Any) -> None:
        super().__init__((int, float) if kind is float else kind)
        self.kind = kind

    def default(self) -> Any:
        return 0 if self.kind is float else self.kind()

    def read(self, node: Any, name: str) -> Any:
        return self.kind(node.GetParameter(name))


class BoolSerializer(Serializer):
    def __init__(self) -> None:
        super().__init__(bool)

    def default(self) -> bool:
        return False

    def read(self, node: Any, name: str) -> bool:
        return bool(node.GetParameter(name) == "True")


class EnumSerializer(Serializer):
    def __init__(self, kind: type[enum.Enum]) -> None:
        super().__init__(kind)
        self.kind = kind

    def default(self) -> Any:
        return next(iter(self.kind))

    def text(self, value: Any) -> str:
        return str(value.name)

    def read(self, node: Any, name: str) -> Any:
        return self.kind[node.GetParameter(name)]


class NodeSerializer(Serializer):
    """A node of the class, or None."""

    def __init__(self, kind: type) -> None:
        super().__init__((kind, type(None)))

    def default(self) -> None:
        return None

    def put(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, None if value is None else value.GetID())

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


def make_serializer(annotated: Any) -> Serializer:
    """The serializer for an annotated type.

    Raises:
        TypeError: this host keeps no values of that type.
    """
    kind, annotations = split_annotations(annotated)
    serializer = _bare_serializer(kind)
    serializer.validators = [one for one in annotations if isinstance(one, Validator)]
    return serializer


def _bare_serializer(kind: Any) -> Serializer:
    if typing.get_origin(kind) is list:
        return ListSerializer(make_serializer(typing.get_args(kind)[0]))
    if kind is bool:
        return BoolSerializer()
    if kind in (int, float, str) or kind in (pathlib.Path, pathlib.PurePath):
        return PlainSerializer(kind)
    if hasattr(kind, "pack_members"):
        from .parameter_pack import PackSerializer

        return PackSerializer(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return EnumSerializer(kind)
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return NodeSerializer(kind)
    raise TypeError(f"no serializer for parameters of type {kind}")


class ListSerializer(Serializer):
    def __init__(self, element: Serializer) -> None:
        super().__init__()
        self.element = element

    def default(self) -> list[Any]:
        return []

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(f"{name}.len"))

    def write(self, node: Any, name: str, value: Any) -> None:
        """Writes all or nothing: a value that is refused leaves what was there."""
        before = self._elements(node, name) if self.is_in(node, name) else None
        with slicer.util.NodeModify(node):
            try:
                self._write_elements(node, name, value)
            except Exception:
                self.remove(node, name)
                if before is not None:
                    self._write_elements(node, name, before)
                raise

    def _write_elements(self, node: Any, name: str, values: Any) -> None:
        length = self._length(node, name)
        for index, value in enumerate(values):
            self.element.write(node, f"{name}.{index}", value)
        node.SetParameter(f"{name}.len", str(len(values)))
        for index in range(len(values), length):
            self.element.remove(node, f"{name}.{index}")

    def read(self, node: Any, name: str) -> ObservedList:
        return ObservedList(
            self._elements(node, name),
            lambda values: self.write(node, name, values),
            lambda: self._elements(node, name),
        )

    def _elements(self, node: Any, name: str) -> list[Any]:
        return [
            self.element.read(node, f"{name}.{index}") for index in range(self._length(node, name))
        ]

    def _length(self, node: Any, name: str) -> int:
        return int(node.GetParameter(f"{name}.len")) if self.is_in(node, name) else 0

    def remove(self, node: Any, name: str) -> None:
        with slicer.util.NodeModify(node):
            for index in range(self._length(node, name)):
                self.element.remove(node, f"{name}.{index}")
            node.UnsetParameter(f"{name}.len")
