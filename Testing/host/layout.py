"""`slicer.app.layoutManager()`: three slice views, a 3-D view and a plot view, four at a time."""

# ruff: noqa: N801
from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets

from .checked_property import checked_property
from .plot_view import qMRMLPlotWidget
from .slice_views import qMRMLSliceWidget, qMRMLThreeDWidget

_SLICES = ("Red", "Green", "Yellow")


class qSlicerLayoutManager(QtWidgets.QWidget):
    def __init__(self) -> None:
        super().__init__()
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._node = self._logic.GetLayoutNode()
        # The logic makes the nodes of the views that an arrangement has.
        for name in ("FourUpPlot", "FourUp"):
            arrangement = getattr(slicer.vtkMRMLLayoutNode, f"SlicerLayout{name}View")
            self._node.SetViewArrangement(arrangement)
        self._slices = {name: qMRMLSliceWidget(_view_node(f"SliceNode{name}")) for name in _SLICES}
        self._three_d = qMRMLThreeDWidget(_view_node("ViewNode1"))
        self._plot = qMRMLPlotWidget(_view_node("PlotViewNodePlotView1"))
        self._arrange()
        self._follow()
        self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._follow())
        # Closing the scene resets the views' nodes.
        closed = slicer.vtkMRMLScene.EndCloseEvent
        slicer.mrmlScene.AddObserver(closed, lambda *_: self._follow())

    def _arrange(self) -> None:
        """Rows and columns of the four-up arrangement; the plot has a row of its own if need be."""
        self._grid = QtWidgets.QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(2)
        self._grid.addWidget(self._slices["Red"], 0, 0)
        self._grid.addWidget(self._three_d, 0, 1)
        self._grid.addWidget(self._slices["Green"], 1, 0)
        self._grid.addWidget(self._slices["Yellow"], 1, 1)
        for part in (0, 1):
            self._grid.setRowStretch(part, 1)
            self._grid.setColumnStretch(part, 1)
        QtWidgets.QWidget.setLayout(self, self._grid)

    def _views(self) -> list[tuple[QtWidgets.QWidget, Any]]:
        slices = [(one, one.mrmlSliceNode()) for one in self._slices.values()]
        return [
            *slices,
            (self._three_d, self._three_d.mrmlViewNode()),
            (self._plot, self._plot.mrmlPlotViewNode()),
        ]

    def _follow(self) -> None:
        """Shows the views that the arrangement names, and tells their nodes."""
        description = self._node.GetLayoutDescription(self._node.GetViewArrangement()) or ""
        for widget, node in self._views():
            named = f'class="{node.GetClassName()}" singletontag="{node.GetSingletonTag()}"'
            widget.setVisible(named in description)
            node.SetMappedInLayout(named in description)
        row, columns = (0, 1) if self._three_d.isHidden() else (2, 2)
        self._grid.addWidget(self._plot, row, 2 - columns, 1, columns)
        for one in self._slices.values():
            one.sliceView()._resized()

    layout = checked_property(
        int,
        lambda self: self._node.GetViewArrangement(),
        lambda self, arrangement: self.setLayout(arrangement),
    )
    threeDViewCount = checked_property(int, lambda self: 1)
    plotViewCount = checked_property(int, lambda self: 1)

    def setLayout(self, arrangement: int) -> None:
        self._node.SetViewArrangement(arrangement)

    def layoutLogic(self) -> Any:
        return self._logic

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._slices)

    def sliceWidget(self, name: str) -> qMRMLSliceWidget | None:
        return self._slices.get(name)

    def threeDWidget(self, index: int) -> qMRMLThreeDWidget | None:
        return self._three_d if index == 0 else None

    def plotWidget(self, index: int) -> qMRMLPlotWidget | None:
        return self._plot if index == 0 else None

    def mrmlSliceLogics(self) -> Any:
        return slicer.app.applicationLogic().GetSliceLogics()

    def resetSliceViews(self) -> None:
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        self._three_d.threeDView().resetFocalPoint()


def _view_node(name: str) -> Any:
    return slicer.mrmlScene.GetNodeByID("vtkMRML" + name)
