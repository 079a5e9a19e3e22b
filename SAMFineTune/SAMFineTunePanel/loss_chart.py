"""Loss and validation DSC of a fine-tune as a chart in Slicer's own plot view."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

_NAME = "SAMFineTune"
_SERIES = (("loss", (0.85, 0.40, 0.31)), ("validation", (0.20, 0.55, 0.80)))


class LossChart:
    """Two tables, two series and a chart in the scene, made when first needed and used again."""

    def __init__(self) -> None:
        self._chart: slicer.vtkMRMLPlotChartNode | None = None
        self._tables: dict[str, slicer.vtkMRMLTableNode] = {}

    def forget(self) -> None:
        """The scene was closed: its nodes are gone."""
        self._chart, self._tables = None, {}

    def draw(self, losses: list[tuple[int, float]], validations: list[tuple[int, float]]) -> None:
        """Show these points: (step, value)."""
        self._make()
        for (name, _colour), points in zip(_SERIES, (losses, validations), strict=True):
            _fill(self._tables[name], points)

    def show(self) -> None:
        """Bring the chart into view, in a layout with a plot view."""
        self._make()
        slicer.modules.plots.logic().ShowChartInLayout(self._chart)

    def _make(self) -> None:
        nodes = [self._chart, *self._tables.values()]
        if self._chart is not None and all(slicer.mrmlScene.IsNodePresent(node) for node in nodes):
            return
        self._chart = _node("vtkMRMLPlotChartNode", _("Fine-tune"))
        self._chart.SetTitle(_("Fine-tune"))
        self._chart.SetXAxisTitle(_("Step"))
        self._chart.SetYAxisTitle(_("Loss, validation DSC"))
        self._chart.RemoveAllPlotSeriesNodeIDs()
        titles = {"loss": _("Loss"), "validation": _("Validation DSC")}
        for name, colour in _SERIES:
            self._tables[name] = _node("vtkMRMLTableNode", f"{_NAME} {name}")
            series = _node("vtkMRMLPlotSeriesNode", titles[name])
            _fill(self._tables[name], [])
            series.SetAndObserveTableNodeID(self._tables[name].GetID())
            series.SetXColumnName("step")
            series.SetYColumnName("value")
            series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
            series.SetColor(*colour)
            self._chart.AddAndObservePlotSeriesNodeID(series.GetID())


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
