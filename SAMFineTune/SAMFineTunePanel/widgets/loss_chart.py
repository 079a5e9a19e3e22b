"""Loss and validation DSC of a fine-tune as a chart in Slicer's own plot view."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.scene_removal import removeNode

_NAME = "SAMFineTune"
_SERIES = (("loss", (0.85, 0.40, 0.31)), ("validation", (0.20, 0.55, 0.80)))
# VTK logs an error for each drawing of a line that has fewer.
_LEAST_POINTS = 2


class LossChart:
    """Two tables, two series and a chart in the scene, made when first needed and used again.

    Slicer's plot view keeps its axes when points come: it is told to fit them, as long as they are as the last fit
    has left them. Where the user has zoomed or moved them they stay, until `show` is called again.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """The scene was closed: its nodes are gone."""
        self._chart: slicer.vtkMRMLPlotChartNode | None = None
        self._tables: dict[str, slicer.vtkMRMLTableNode] = {}
        self._series: dict[str, slicer.vtkMRMLPlotSeriesNode] = {}
        # The axes after the last fit; None before the first one.
        self._fitted: tuple | None = None

    def draw(self, losses: list[tuple[int, float]], validations: list[tuple[int, float]]) -> None:
        """Show these points: (step, value)."""
        chart = self._make()
        for (name, _colour), points in zip(_SERIES, (losses, validations), strict=True):
            _fill(self._tables[name], points)
            self._showSeries(chart, self._series[name], len(points) >= _LEAST_POINTS)
        if chart.GetNumberOfPlotSeriesNodes() == 0:
            # What the user has looked at is gone.
            self._fitted = None
        if self._fitted is None or self._fitted == _axesOf(chart):
            self._fit(chart)

    def show(self) -> None:
        """Bring the whole chart into view, in a layout with a plot view."""
        chart = self._make()
        slicer.modules.plots.logic().ShowChartInLayout(chart)
        self._fit(chart)

    @staticmethod
    def _showSeries(chart: slicer.vtkMRMLPlotChartNode, series: slicer.vtkMRMLPlotSeriesNode, on: bool) -> None:
        if on == bool(chart.HasPlotSeriesNodeID(series.GetID())):
            return
        if on:
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
        else:
            chart.RemovePlotSeriesNodeID(series.GetID())

    def _fit(self, chart: slicer.vtkMRMLPlotChartNode) -> None:
        if chart.GetNumberOfPlotSeriesNodes() == 0:
            return
        for view in _viewsOf(chart):
            view.fitToContent()
            self._fitted = _axesOf(chart)

    def _make(self) -> slicer.vtkMRMLPlotChartNode:
        """The chart, made anew where one of its nodes is not in the scene."""
        nodes = [self._chart, *self._tables.values(), *self._series.values()]
        if self._chart is not None and all(slicer.mrmlScene.IsNodePresent(node) for node in nodes):
            return self._chart
        # One that the user has removed is of no use without the others.
        for node in nodes:
            removeNode(node)
        self.forget()
        chart = self._chart = _node("vtkMRMLPlotChartNode", _("Fine-tune"))
        chart.SetTitle(_("Fine-tune"))
        chart.SetXAxisTitle(_("Step"))
        chart.SetYAxisTitle(_("Loss, validation DSC"))
        titles = {"loss": _("Loss"), "validation": _("Validation DSC")}
        for name, colour in _SERIES:
            table = self._tables[name] = _node("vtkMRMLTableNode", f"{_NAME} {name}")
            series = self._series[name] = _node("vtkMRMLPlotSeriesNode", titles[name])
            _fill(table, [])
            series.SetAndObserveTableNodeID(table.GetID())
            series.SetXColumnName("step")
            series.SetYColumnName("value")
            series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
            series.SetColor(*colour)
        return chart


def _axesOf(chart: slicer.vtkMRMLPlotChartNode) -> tuple:
    """What the chart's node has of the axes: from the last fit, or from what the user has done since."""
    return chart.GetXAxisRange(), chart.GetYAxisRange(), chart.GetXAxisRangeAuto(), chart.GetYAxisRangeAuto()


def _viewsOf(chart: slicer.vtkMRMLPlotChartNode) -> list:
    """The plot views that show a chart; none where Slicer has no main window."""
    layout = slicer.app.layoutManager()
    widgets = [layout.plotWidget(index) for index in range(layout.plotViewCount)] if layout is not None else []
    # The widget around a view knows its node; Python cannot ask the view itself.
    return [each.plotView() for each in widgets if each.mrmlPlotViewNode().GetPlotChartNodeID() == chart.GetID()]


def _node(className: str, name: str) -> slicer.vtkMRMLNode:
    node = slicer.mrmlScene.AddNewNodeByClass(className, name)
    # The chart shows what goes on now; there is nothing in it to be saved with the scene.
    node.SetSaveWithScene(False)
    return node


def _fill(tableNode: slicer.vtkMRMLTableNode, points: list[tuple[int, float]]) -> None:
    table = vtk.vtkTable()
    for name, values in (("step", [x for x, _y in points]), ("value", [y for _x, y in points])):
        column = vtk.vtkFloatArray()
        column.SetName(name)
        for value in values:
            column.InsertNextValue(float(value))
        table.AddColumn(column)
    tableNode.SetAndObserveTable(table)
