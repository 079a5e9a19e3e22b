"""What Slicer's widgets that show the MRML scene have in common.

Names without an underscore are properties, signals, slots and invokables of Slicer's headers.
"""

# ruff: noqa: N801
from __future__ import annotations

import weakref
from typing import Any

import shiboken6
from PySide6 import QtWidgets
from PySide6.QtCore import Signal


class Observations:
    """A widget's observations of VTK objects, which do not outlive the widget or keep it alive."""

    def __init__(self, owner: QtWidgets.QWidget) -> None:
        self._kept: list[tuple[Any, int]] = []
        kept = self._kept
        owner.destroyed.connect(lambda: _drop(kept))

    def _replace(self, observed: list[Any], events: tuple[int, ...], callback: Any) -> None:
        """Observes these objects and no others; `callback` is a method of the widget."""
        _drop(self._kept)
        kept, method = self._kept, weakref.WeakMethod(callback)

        def tell(caller: Any, event: str) -> None:
            alive = method()
            if alive is not None and shiboken6.isValid(alive.__self__):
                alive(caller, event)
            else:
                _drop(kept)

        for one in observed:
            kept.extend((one, one.AddObserver(event, tell)) for event in events)


def _drop(kept: list[tuple[Any, int]]) -> None:
    for observed, tag in kept:
        observed.RemoveObserver(tag)
    kept.clear()


class qMRMLWidget(QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qSlicerWidget(qMRMLWidget):
    pass


class _NotInThisHost:
    def __init__(self, *arguments: Any) -> None:
        raise NotImplementedError(f"the test host has no {type(self).__name__}")


# Known by name, for Slicer's own Python modules compare with them.
class qMRMLSliderWidget(_NotInThisHost):
    pass


class qMRMLRangeWidget(_NotInThisHost):
    pass


class qMRMLSpinBox(_NotInThisHost):
    pass
