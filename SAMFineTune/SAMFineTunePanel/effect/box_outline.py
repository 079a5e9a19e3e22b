"""The outline of a box while it is drawn in a slice view."""

from __future__ import annotations

import vtk

_COLOUR = (1.0, 0.85, 0.2)


class BoxOutline:
    """A rectangle in pixels of a view.

    Attributes:
        actor: to be added to the view's renderer.
    """

    def __init__(self) -> None:
        self.actor = vtk.vtkActor2D()
        self.actor.VisibilityOff()
        self.actor.GetProperty().SetColor(*_COLOUR)
        self.actor.GetProperty().SetLineWidth(2)
        self._points = vtk.vtkPoints()
        self._points.SetNumberOfPoints(4)
        lines = vtk.vtkCellArray()
        lines.InsertNextCell(5)
        for index in (0, 1, 2, 3, 0):
            lines.InsertCellPoint(index)
        outline = vtk.vtkPolyData()
        outline.SetPoints(self._points)
        outline.SetLines(lines)
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputData(outline)
        self.actor.SetMapper(mapper)

    def show(self, corners: tuple[tuple[int, int], tuple[int, int]] | None) -> None:
        """Show the box between two opposite corners; None shows nothing."""
        self.actor.SetVisibility(corners is not None)
        if corners is None:
            return
        (left, bottom), (right, top) = corners
        for index, (x, y) in enumerate(((left, bottom), (right, bottom), (right, top), (left, top))):
            self._points.SetPoint(index, x, y, 0.0)
        self._points.Modified()
