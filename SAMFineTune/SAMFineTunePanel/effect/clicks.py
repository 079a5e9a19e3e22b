"""What the mouse does in a slice view while the Segment Editor's effect is active, as prompts."""

from __future__ import annotations

from collections.abc import Callable

import slicer
import vtk

Ras = tuple[float, float, float]
Xy = tuple[int, int]


class EffectClicks:
    """Reads the events of a slice view's interactor.

    A left click is a point, with Ctrl one of the other kind; where a box is to be drawn, it is dragged with the
    left button. Shift and Alt are left to the view, as Slicer's own effects do.

    Args:
        addPoint: called with RAS in the world, and whether the structure is there.
        addBox: called with RAS of two opposite corners.
        isTaken: whether something at a pixel of a slice view is to be dragged instead.

    Attributes:
        isPositive: what a click without Ctrl means.
        drawsBox: whether the next drag draws a box; ends with it.
    """

    def __init__(
        self,
        addPoint: Callable[[Ras, bool], None],
        addBox: Callable[[Ras, Ras], None],
        isTaken: Callable[[Xy, slicer.vtkMRMLSliceNode], bool],
    ) -> None:
        self.isPositive = True
        self.drawsBox = False
        self._addPoint = addPoint
        self._addBox = addBox
        self._isTaken = isTaken
        self._first: tuple[Ras, Xy] | None = None
        self._last: Xy = (0, 0)

    @property
    def corners(self) -> tuple[Xy, Xy] | None:
        """The box that is being drawn, in pixels of the view; None when none is."""
        return None if self._first is None else (self._first[1], self._last)

    def handle(self, event: int, interactor: vtk.vtkRenderWindowInteractor, sliceNode: slicer.vtkMRMLSliceNode) -> bool:
        """Act on an event; whether it is dealt with, so that the view must not act on it too."""
        if event == vtk.vtkCommand.LeftButtonPressEvent:
            return self._press(interactor, sliceNode)
        if event == vtk.vtkCommand.LeftButtonDoubleClickEvent:
            # It comes in place of a second press; the view would fill the window with itself.
            return not (_isLeftToView(interactor) or self._isTaken(interactor.GetEventPosition(), sliceNode))
        if self._first is None:
            return False
        if event == vtk.vtkCommand.MouseMoveEvent:
            self._last = interactor.GetEventPosition()
            return True
        if event == vtk.vtkCommand.LeftButtonReleaseEvent:
            first, self.drawsBox = self._first[0], False
            self.cancelBox()
            self._addBox(first, rasAt(sliceNode, interactor.GetEventPosition()))
            return True
        return False

    def cancelBox(self) -> None:
        """Drop the box that is being drawn."""
        self._first = None

    def _press(self, interactor: vtk.vtkRenderWindowInteractor, sliceNode: slicer.vtkMRMLSliceNode) -> bool:
        if _isLeftToView(interactor):
            return False
        place, other = interactor.GetEventPosition(), bool(interactor.GetControlKey())
        if self._isTaken(place, sliceNode):
            return False
        if self.drawsBox and not other:
            self._first, self._last = (rasAt(sliceNode, place), place), place
        else:
            self._addPoint(rasAt(sliceNode, place), self.isPositive != other)
        return True


def _isLeftToView(interactor: vtk.vtkRenderWindowInteractor) -> bool:
    return bool(interactor.GetShiftKey() or interactor.GetAltKey())


def rasAt(sliceNode: slicer.vtkMRMLSliceNode, xy: Xy) -> Ras:
    """The point of the world at a pixel of a slice view."""
    return tuple(sliceNode.GetXYToRAS().MultiplyPoint((*xy, 0.0, 1.0))[:3])
