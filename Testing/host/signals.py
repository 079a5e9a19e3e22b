"""PythonQt's connect and disconnect: signals by their C++ signature, arguments cut to the slot."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QMetaMethod, QMetaObject, QObject, SignalInstance

from .collected_errors import record, record_exception


@dataclass
class _Connection:
    signature: str
    slot: Callable[..., Any]
    receiver: Callable[..., None]
    signal: SignalInstance


def normalised(signature: str) -> str:
    """The signature as the meta object of a stand-in spells it."""
    # A signal of the host that carries a VTK object is declared with `object`.
    signature = re.sub(r"vtk\w+\s*\*(\s*\w+)?", "PyObject", signature)
    return bytes(QMetaObject.normalizedSignature(signature).data()).decode()


def connect(sender: QObject, *arguments: Any) -> bool:
    """`sender.connect("signal(type)", callable)` or `(…, receiver, "slot()")`.

    PythonQt prints an unknown signal and returns False; here it is an error of the test as well.
    """
    if isinstance(arguments[0], QObject):
        # PySide6 itself, on behalf of QTimer.singleShot.
        return bool(_raw(sender, "connect")(*arguments))
    if len(arguments) == 3:
        signature, receiver, slot_signature = arguments
        slot = getattr(receiver, slot_signature.partition("(")[0])
    else:
        signature, slot = arguments
    if not callable(slot):
        raise TypeError(f"connect: {slot!r} is not callable")
    found = _signal(sender, signature)
    if found is None:
        name = _raw(sender, "metaObject")().className()
        record(f"QObject::connect: signal '{signature}' does not exist on {name}")
        return False
    signal, carried = found
    connection = _Connection(normalised(signature), slot, _receiver(slot, carried), signal)
    signal.connect(connection.receiver)
    _connections(sender).append(connection)
    return True


def disconnect(sender: QObject, *arguments: Any) -> bool:
    """Undoes a `connect` of the same signal and callable; all of a signal without a callable."""
    signature, *slots = arguments
    kept = _connections(sender)
    undone = [
        one
        for one in kept
        if one.signature == normalised(signature) and (not slots or one.slot == slots[0])
    ]
    for one in undone:
        one.signal.disconnect(one.receiver)
        kept.remove(one)
    return bool(undone)


def _raw(instance: QObject, name: str) -> Any:
    from .python_qt import raw

    return raw(instance, name)


def _connections(sender: QObject) -> list[_Connection]:
    return _raw(sender, "__dict__").setdefault("_connections", [])


def _signal(sender: QObject, signature: str) -> tuple[SignalInstance, int] | None:
    """The signal and how many arguments it carries."""
    meta = _raw(sender, "metaObject")()
    wanted = normalised(signature)
    index = meta.indexOfSignal(wanted)
    if index < 0:
        return None
    method: QMetaMethod = meta.method(index)
    signal = _raw(sender, bytes(method.name().data()).decode())
    carried = method.parameterCount()
    # A signature that leaves out arguments with defaults is no overload of its own.
    return (signal[wanted[wanted.index("(") + 1 : -1]] if carried else signal), carried


def _receiver(slot: Callable[..., Any], carried: int) -> Callable[..., None]:
    taken = _taken(slot)

    def receive(*values: Any) -> None:
        values = values[:carried]
        try:
            slot(*(values if taken is None else values[:taken]))
        except Exception:
            record_exception()

    return receive


def _taken(slot: Callable[..., Any]) -> int | None:
    """How many positional arguments the slot takes; None when any number or unknown."""
    try:
        parameters = inspect.signature(slot).parameters.values()
    except (ValueError, TypeError):
        return None
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return None
    return sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters)
