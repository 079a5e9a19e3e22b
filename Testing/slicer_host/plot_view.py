"""A plot view that draws the lines of a chart node; simple, for the eye."""

# ruff: noqa: N801
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import vtk
from PySide6 import QtCore, QtGui
from PySide6.QtCore import Qt

from .mrml_widgets import qMRMLWidget

_MARGINS = (48, 24, 12, 36)


@dataclass(frozen=True)
class _Line:
    name: str
    colour: QtGui.QColor
    x: np.ndarray
    y: np.ndarray


class qMRMLPlotWidget(qMRMLWidget):
    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node
        self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._look_again())
        self._chart: Any = None
        # A chart says nothing when a value of its table changes in place.
        self._timer = QtCore.QTimer(self)
        self._timer.timeout.connect(self.update)
        self.setMinimumSize(80, 80)

    def mrmlPlotViewNode(self) -> Any:
        return self._node

    def _look_again(self) -> None:
        self._chart = self._node.GetPlotChartNode()
        if self._chart is None:
            self._timer.stop()
        else:
            self._timer.start(500)
        self.update()

    def _lines(self) -> list[_Line]:
        chart = self._chart
        count = chart.GetNumberOfPlotSeriesNodes() if chart is not None else 0
        return [_line(chart.GetNthPlotSeriesNode(index)) for index in range(count)]

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect, QtGui.QColor("white"))
        lines = [line for line in self._lines() if len(line.x)]
        if lines:
            left, top, right, bottom = _MARGINS
            _draw(painter, self.rect.adjusted(left, top, -right, -bottom), lines)
            painter.setPen(QtGui.QColor("black"))
            title = QtCore.QRect(0, 2, self.width, top)
            painter.drawText(title, Qt.AlignmentFlag.AlignHCenter, self._chart.GetTitle() or "")
            below = self.rect.adjusted(0, 0, 0, -2)
            where = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom
            painter.drawText(below, where, self._chart.GetXAxisTitle() or "")
        painter.end()


def _line(series: Any) -> _Line:
    table = series.GetTableNode().GetTable()
    columns = [
        table.GetColumnByName(name) if name else None
        for name in (series.GetXColumnName(), series.GetYColumnName())
    ]
    x, y = (
        [one.GetValue(i) for i in range(one.GetNumberOfValues())] if one else [] for one in columns
    )
    known = np.isfinite(np.asarray(y, dtype=float))
    return _Line(
        series.GetName() or "",
        QtGui.QColor.fromRgbF(*series.GetColor()),
        np.asarray(x, dtype=float)[known],
        np.asarray(y, dtype=float)[known],
    )


def _draw(painter: QtGui.QPainter, area: QtCore.QRect, lines: list[_Line]) -> None:
    x = np.concatenate([line.x for line in lines])
    y = np.concatenate([line.y for line in lines])
    low = np.array([x.min(), min(y.min(), 0.0)])
    span = np.maximum(np.array([x.max(), y.max()]) - low, 1e-9)
    painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
    painter.setPen(QtGui.QColor("gray"))
    painter.drawRect(area)
    painter.drawText(2, area.top() + 10, f"{low[1] + span[1]:.3g}")
    painter.drawText(2, area.bottom(), f"{low[1]:.3g}")
    painter.drawText(area.left(), area.bottom() + 14, f"{low[0]:.4g}")
    painter.drawText(area.right() - 30, area.bottom() + 14, f"{low[0] + span[0]:.4g}")
    for row, line in enumerate(lines):
        painter.setPen(QtGui.QPen(line.colour, 2))
        across = area.left() + (line.x - low[0]) / span[0] * area.width()
        down = area.bottom() - (line.y - low[1]) / span[1] * area.height()
        points = [QtCore.QPointF(a, b) for a, b in zip(across, down, strict=True)]
        painter.drawPolyline(points)
        for point in points[-1:]:
            painter.drawEllipse(point, 2, 2)
        painter.drawText(area.right() - 120, area.top() + 16 + 14 * row, line.name)
