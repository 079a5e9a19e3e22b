"""A widget that shows a VTK render window drawn off-screen, and passes mouse and wheel on to it."""

# ruff: noqa: N801
from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt
from vtk.util.numpy_support import vtk_to_numpy

_BUTTONS = {
    Qt.MouseButton.LeftButton: "LeftButton",
    Qt.MouseButton.MiddleButton: "MiddleButton",
    Qt.MouseButton.RightButton: "RightButton",
}


class qMRMLAbstractView(QtWidgets.QWidget):
    """Base of the slice and 3-D views; `_set_up_managers` gives it something to draw."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumSize(80, 80)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._renderer = vtk.vtkRenderer()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._interactor.Initialize()
        self._interactor.AddObserver("RenderEvent", lambda *_: self.scheduleRender())
        self._stale = True
        self._image: QtGui.QImage | None = None

    def _set_up_managers(self, factory: Any, names: tuple[str, ...], node: Any, style: Any) -> None:
        for name in names:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._managers = factory.InstantiateDisplayableManagers(self._renderer)
        self._managers.SetMRMLDisplayableNode(node)
        self._managers.AddObserver(vtk.vtkCommand.UpdateEvent, lambda *_: self.scheduleRender())
        style.SetDisplayableManagers(self._managers)
        style.SetInteractor(self._interactor)
        self._style = style

    def renderWindow(self) -> Any:
        return self._window

    def interactor(self) -> Any:
        return self._interactor

    def displayableManagerByClassName(self, name: str) -> Any:
        return self._managers.GetDisplayableManagerByClassName(name)

    def scheduleRender(self) -> None:
        if not self._stale:
            self._stale = True
            self.update()

    def forceRender(self) -> None:
        self._stale = False
        self._window.Render()
        width, height = self._window.GetSize()
        pixels = vtk.vtkUnsignedCharArray()
        self._window.GetPixelData(0, 0, width - 1, height - 1, 0, pixels, 0)
        # VTK counts rows from the bottom.
        rows = np.ascontiguousarray(vtk_to_numpy(pixels).reshape(height, width, 3)[::-1])
        picture = QtGui.QImage(
            rows.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888
        )
        self._image = picture.copy()

    def _resized(self) -> None:
        """For what depends on the window's size."""

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        self._window.SetSize(max(event.size().width(), 2), max(event.size().height(), 2))
        self._interactor.UpdateSize(*self._window.GetSize())
        self._resized()
        self._stale = True

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        if self._stale or self._image is None:
            self.forceRender()
        painter = QtGui.QPainter(self)
        painter.drawImage(0, 0, self._image)
        painter.end()

    def _pass_on(self, event: Any, name: str) -> None:
        held = event.modifiers()
        position = event.position()
        self._interactor.SetEventInformation(
            int(position.x()),
            self._window.GetSize()[1] - 1 - int(position.y()),
            int(bool(held & Qt.KeyboardModifier.ControlModifier)),
            int(bool(held & Qt.KeyboardModifier.ShiftModifier)),
            chr(0),
            0,
            None,
        )
        self._interactor.InvokeEvent(name)

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        self._pass_on(event, "MouseMoveEvent")

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        self._pass_on(event, "MouseMoveEvent")
        self._pass_on(event, _BUTTONS[event.button()] + "PressEvent")

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:
        self._pass_on(event, _BUTTONS[event.button()] + "ReleaseEvent")

    def mouseDoubleClickEvent(self, event: QtGui.QMouseEvent) -> None:
        self._pass_on(event, _BUTTONS[event.button()] + "DoubleClickEvent")

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        way = "Forward" if event.angleDelta().y() > 0 else "Backward"
        self._pass_on(event, f"MouseWheel{way}Event")

    def enterEvent(self, event: QtCore.QEvent) -> None:
        self._interactor.InvokeEvent("EnterEvent")

    def leaveEvent(self, event: QtCore.QEvent) -> None:
        self._interactor.InvokeEvent("LeaveEvent")
