"""`@parameterPack`: several values that are one parameter, also as the elements of a list."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

import slicer

from .parameter_annotations import Default, first_annotation
from .parameter_serializers import Serializer, make_serializer


@dataclass
class PackMember:
    """One value of a pack."""

    name: str
    annotated: Any
    serializer: Serializer
    default: Any


def parameterPack(kind: Any = None) -> Any:
    """Class decorator: makes the annotated members checked properties with defaults."""
    if kind is None:
        return parameterPack
    hints = typing.get_type_hints(kind, include_extras=True)
    if not hints:
        raise ValueError(f"{kind.__name__} has no members")
    kind.pack_members = {name: _make_member(kind, name, hint) for name, hint in hints.items()}
    for name in hints:
        setattr(kind, name, _checked(name))
    kind.__init__ = _init
    kind.__eq__ = _equals
    kind.__hash__ = None
    kind.__repr__ = _text
    kind.getValue = lambda self, name: getattr(self, name)
    kind.setValue = lambda self, name, value: setattr(self, name, value)
    kind.dataType = staticmethod(lambda name: kind.pack_members[name].annotated)
    kind.allParameters = kind.pack_members
    return kind


def isParameterPack(kind: Any) -> bool:
    return hasattr(kind, "pack_members")


def _make_member(kind: type, name: str, hint: Any) -> PackMember:
    serializer = make_serializer(hint)
    default = first_annotation(hint, Default)
    if name in kind.__dict__:
        value = kind.__dict__[name]
    else:
        # As in Slicer, all packs share a default that is a list.
        value = default.value if default is not None else serializer.default()
    serializer.validate(value)
    return PackMember(name, hint, serializer, value)


def _checked(name: str) -> property:
    def write(self: Any, value: Any) -> None:
        self.pack_members[name].serializer.validate(value)
        self.__dict__["_values"][name] = value
        save = self.__dict__.get("_save")
        if save is not None:
            save()

    return property(lambda self: self.__dict__["_values"][name], write)


def _init(self: Any, *arguments: Any, **named: Any) -> None:
    given = dict(zip(self.pack_members, arguments, strict=False)) | named
    unknown = [name for name in given if name not in self.pack_members]
    if unknown or len(arguments) > len(self.pack_members):
        raise TypeError(f"{type(self).__name__} has no members {unknown}")
    self.__dict__["_values"] = {}
    for name, member in self.pack_members.items():
        setattr(self, name, given.get(name, member.default))


def _equals(self: Any, other: object) -> bool:
    same_kind = getattr(other, "pack_members", None) is self.pack_members
    return same_kind and bool(self._values == vars(other)["_values"])


def _text(self: Any) -> str:
    values = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
    return f"{type(self).__name__}({values})"


class PackSerializer(Serializer):
    """Keeps the member `m` of the pack `p` under the name `p.m`."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.kind = kind
        self.members: dict[str, PackMember] = kind.pack_members
        # What is read from a node writes itself back when it is changed, and takes no new names.
        self.observed = type(kind.__name__, (kind,), {"__setattr__": _set_known})

    def default(self) -> Any:
        return self.kind()

    def is_in(self, node: Any, name: str) -> bool:
        first = next(iter(self.members.values()))
        return first.serializer.is_in(node, f"{name}.{first.name}")

    def put(self, node: Any, name: str, value: Any) -> None:
        with slicer.util.NodeModify(node):
            for member in self.members.values():
                member.serializer.write(node, f"{name}.{member.name}", getattr(value, member.name))

    def read(self, node: Any, name: str) -> Any:
        pack = self.observed(**self._values(node, name))

        def save() -> None:
            try:
                self.put(node, name, pack)
            finally:
                pack.__dict__["_values"] = self._values(node, name)

        pack.__dict__["_save"] = save
        return pack

    def _values(self, node: Any, name: str) -> dict[str, Any]:
        return {
            member.name: member.serializer.read(node, f"{name}.{member.name}")
            for member in self.members.values()
        }

    def remove(self, node: Any, name: str) -> None:
        for member in self.members.values():
            member.serializer.remove(node, f"{name}.{member.name}")


def _set_known(self: Any, name: str, value: Any) -> None:
    if name not in self.pack_members:
        raise AttributeError(f"{type(self).__name__} has no member '{name}'")
    object.__setattr__(self, name, value)
