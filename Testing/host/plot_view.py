"""A plot view that shows the series of a chart node in a chart of VTK, as Slicer's does.

Its axes are computed when series come or go and when it is told to fit them; until then they stay
as they are, whatever comes to the tables.
"""

# ruff: noqa: N801
from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets

from .collected_errors import record
from .mrml_widgets import qMRMLWidget
from .render_view import qMRMLAbstractView

_LEFT, _BOTTOM = vtk.vtkAxis.LEFT, vtk.vtkAxis.BOTTOM


class qMRMLPlotView(qMRMLAbstractView):
    """The node of the view is known to the widget around it; PythonQt does not show it here."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node
        self._chart_node: Any = None
        self._chart_tag = 0
        self._is_updating = False
        self._plots: dict[str, Any] = {}
        self._chart = vtk.vtkChartXY()
        self._window.RemoveRenderer(self._renderer)
        self._context = vtk.vtkContextView()
        self._context.SetRenderWindow(self._window)
        self._context.GetScene().AddItem(self._chart)
        self._context.GetRenderer().SetBackground(1.0, 1.0, 1.0)
        self._style = vtk.vtkContextInteractorStyle()
        self._style.SetScene(self._context.GetScene())
        self._interactor.SetInteractorStyle(self._style)
        left = vtk.vtkContextMouseEvent.LEFT_BUTTON
        self._chart.SetActionToButton(vtk.vtkChart.PAN, left)
        self._chart.AddObserver(vtk.vtkCommand.InteractionEvent, self._tell_ranges)
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._take_chart)
        self._take_chart()

    def fitToContent(self) -> None:
        """Gives the axes the range of what the plots hold at present."""
        bounds = [plot.GetUnscaledInputBounds for plot in self._plots.values()]
        ranges: dict[int, list[float]] = {}
        for get_bounds in bounds:
            found = [0.0, 0.0, 0.0, 0.0]
            get_bounds(found)
            if found[1] < found[0]:
                continue
            for axis, pair in ((_BOTTOM, found[:2]), (_LEFT, found[2:])):
                low, high = ranges.get(axis, pair)
                ranges[axis] = [min(low, pair[0]), max(high, pair[1])]
        for axis in (_BOTTOM, _LEFT):
            self._chart.GetAxis(axis).SetUnscaledRange(*ranges.get(axis, (0.0, 0.0)))
            self._chart.GetAxis(axis).AutoScale()
        self._tell_ranges()
        self._draw_again()

    def _draw_again(self) -> None:
        self._context.GetScene().SetDirty(True)
        self.scheduleRender()

    def _tell_ranges(self, *_: Any) -> None:
        """The node of the chart learns what the axes show after a fit or a person's zooming."""
        if self._chart_node is None or self._is_updating:
            return
        changed = self._chart_node.StartModify()
        self._chart_node.SetXAxisRange(*self._axis_range(_BOTTOM))
        self._chart_node.SetYAxisRange(*self._axis_range(_LEFT))
        self._chart_node.EndModify(changed)
        self._draw_again()

    def _axis_range(self, axis: int) -> tuple[float, float]:
        found = [0.0, 0.0]
        self._chart.GetAxis(axis).GetUnscaledRange(found)
        return found[0], found[1]

    def _take_chart(self, *_: Any) -> None:
        chart = self._node.GetPlotChartNode()
        if chart is not self._chart_node:
            if self._chart_node is not None:
                self._chart_node.RemoveObserver(self._chart_tag)
            self._chart_node = chart
            if chart is not None:
                modified = vtk.vtkCommand.ModifiedEvent
                self._chart_tag = chart.AddObserver(modified, self._show_chart)
        self._show_chart()

    def _show_chart(self, *_: Any) -> None:
        if self._is_updating:
            return
        self._is_updating = True
        self._update_plots()
        chart = self._chart_node
        if chart is not None:
            self._chart.SetTitle(chart.GetTitle() or "")
            self._chart.SetShowLegend(chart.GetLegendVisibility())
            for axis, title, is_automatic, fixed in (
                (_BOTTOM, chart.GetXAxisTitle(), chart.GetXAxisRangeAuto(), chart.GetXAxisRange()),
                (_LEFT, chart.GetYAxisTitle(), chart.GetYAxisRangeAuto(), chart.GetYAxisRange()),
            ):
                self._show_axis(self._chart.GetAxis(axis), title or "", is_automatic, fixed)
        self._is_updating = False
        self._draw_again()

    @staticmethod
    def _show_axis(axis: Any, title: str, is_automatic: bool, fixed: tuple[float, float]) -> None:
        axis.SetTitle(title)
        axis.SetBehavior(vtk.vtkAxis.AUTO if is_automatic else vtk.vtkAxis.FIXED)
        if not is_automatic:
            axis.SetUnscaledRange(*fixed)
            axis.Update()

    def _update_plots(self) -> None:
        """A plot for each series that has a table with the columns that it names."""
        wanted = {one.GetID(): one for one in self._series() if _columns(one) is not None}
        for series_id in self._plots.keys() - wanted.keys():
            self._chart.RemovePlotInstance(self._plots.pop(series_id))
        for series_id, series in wanted.items():
            if series_id not in self._plots:
                plot = vtk.vtkPlotLine()
                _show_series(plot, series)
                self._plots[series_id] = plot
                self._chart.AddPlot(plot)
            else:
                _show_series(self._plots[series_id], series)

    def _series(self) -> list[Any]:
        chart = self._chart_node
        if chart is None:
            return []
        every = map(chart.GetNthPlotSeriesNode, range(chart.GetNumberOfPlotSeriesNodes()))
        return [one for one in every if one is not None]


def _columns(series: Any) -> tuple[Any, str, str] | None:
    """Table and names of the columns of a series; None where it has none."""
    node = series.GetTableNode()
    table = node.GetTable() if node is not None else None
    x, y = series.GetXColumnName(), series.GetYColumnName()
    if table is None or any(table.GetColumnByName(name or "") is None for name in (x, y)):
        return None
    return table, x, y


def _show_series(plot: Any, series: Any) -> None:
    scatter = slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter
    if series.GetPlotType() != scatter:
        record(f"the host shows plots of type {scatter} only, not {series.GetPlotType()}")
    columns = _columns(series)
    assert columns is not None
    plot.SetWidth(series.GetLineWidth())
    plot.SetColorF(*series.GetColor())
    plot.SetMarkerStyle(vtk.vtkPlotPoints.NONE)
    plot.SetLabel(series.GetName() or columns[2])
    plot.SetInputData(*columns)


class qMRMLPlotWidget(qMRMLWidget):
    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node
        self._view = qMRMLPlotView(node)
        layout = QtWidgets.QVBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)
        QtWidgets.QWidget.setLayout(self, layout)

    def mrmlPlotViewNode(self) -> Any:
        return self._node

    def plotView(self) -> qMRMLPlotView:
        return self._view
