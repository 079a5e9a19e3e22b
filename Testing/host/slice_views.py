"""Slice and 3-D views with the application's real logics and displayable managers."""

# ruff: noqa: N801
from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets

from .mrml_widgets import qMRMLWidget
from .render_view import qMRMLAbstractView

_SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
)
_THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager3D",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
)


class qMRMLSliceView(qMRMLAbstractView):
    def __init__(self, logic: Any, node: Any) -> None:
        super().__init__()
        self._logic, self._node = logic, node
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._picture = vtk.vtkActor2D()
        self._mapper = vtk.vtkImageMapper()
        # The logic has applied window and level already.
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._picture.SetMapper(self._mapper)
        self._picture.GetProperty().SetDisplayLocationToBackground()
        self._add_overlay()
        style = slicer.vtkMRMLSliceViewInteractorStyle()
        style.SetSliceLogic(logic)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self._set_up_managers(factory, _SLICE_MANAGERS, node, style)
        self._connection: Any = None
        logic.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._take_image())
        self._take_image()

    def _add_overlay(self) -> None:
        """A layer that the displayable managers expect before the image."""
        self._overlay = vtk.vtkRenderer()
        self._overlay.SetLayer(1)
        self._overlay.GetActiveCamera().ParallelProjectionOn()
        self._window.SetNumberOfLayers(2)
        self._window.AddRenderer(self._overlay)

    def _take_image(self) -> None:
        connection = self._logic.GetImageDataConnection()
        if connection is not self._connection:
            self._connection = connection
            self._mapper.SetInputConnection(connection)
            if connection is not None and not self._renderer.HasViewProp(self._picture):
                self._renderer.AddViewProp(self._picture)
            self._picture.SetVisibility(connection is not None)
        self.scheduleRender()

    def _resized(self) -> None:
        self._logic.ResizeSliceNode(*self._window.GetSize())

    def mrmlSliceNode(self) -> Any:
        return self._node

    def convertDeviceToXYZ(self, position: Any) -> tuple[float, float, float]:
        return (position[0], position[1], 0.0)


class qMRMLSliceWidget(qMRMLWidget):
    def __init__(self, node: Any) -> None:
        super().__init__()
        application_logic = slicer.app.applicationLogic()
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._logic.SetSliceNode(node)
        self._node = node
        application_logic.GetSliceLogics().AddItem(self._logic)
        self._view = qMRMLSliceView(self._logic, self._node)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)
        self.setMRMLScene(slicer.mrmlScene)

    def sliceView(self) -> qMRMLSliceView:
        return self._view

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._node

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()


class qMRMLThreeDView(qMRMLAbstractView):
    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        style = slicer.vtkMRMLThreeDViewInteractorStyle()
        self._set_up_managers(factory, _THREE_D_MANAGERS, node, style)

    def mrmlViewNode(self) -> Any:
        return self._node

    def resetFocalPoint(self) -> None:
        self._renderer.ResetCamera()
        self.scheduleRender()


class qMRMLThreeDWidget(qMRMLWidget):
    def __init__(self, node: Any) -> None:
        super().__init__()
        application_logic = slicer.app.applicationLogic()
        self._node = node
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        application_logic.GetViewLogics().AddItem(self._logic)
        self._view = qMRMLThreeDView(self._node)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)

    def threeDView(self) -> qMRMLThreeDView:
        return self._view

    def mrmlViewNode(self) -> Any:
        return self._node
