"""Control points of a node of markups: those that are set, and setting them to wanted places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import slicer

# Millimetres; a point that is not farther from where it should be has not been moved.
_TOLERANCE = 1e-3


def isApart(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two points of the world are not the same."""
    return bool(np.abs(np.subtract(first, second)).max() > _TOLERANCE)


def definedPoints(node: slicer.vtkMRMLMarkupsNode) -> list[int]:
    """Numbers of the control points that are set; one that follows the mouse is not."""
    return [
        number
        for number in range(node.GetNumberOfControlPoints())
        if node.GetNthControlPointPositionStatus(number) == node.PositionDefined
    ]


def setControlPoints(
    node: slicer.vtkMRMLMarkupsNode,
    places: Sequence[np.ndarray],
    whileRemoving: Callable[[], AbstractContextManager[None]],
) -> list[str]:
    """Have control points at these places and nowhere else; what is right already is not touched.

    Args:
        node: of the control points.
        places: RAS of each.
        whileRemoving: makes the context in which surplus points are removed.

    Returns:
        The IDs of the control points, one for each place.
    """
    surplus = [node.GetNthControlPointID(number) for number in definedPoints(node)[len(places) :]]
    if surplus:
        with whileRemoving():
            for pointID in surplus:
                node.RemoveNthControlPoint(node.GetNthControlPointIndexByID(pointID))
    for ras in places[len(definedPoints(node)) :]:
        node.AddControlPointWorld(*ras)
    numbers = definedPoints(node)
    for number, ras in zip(numbers, places, strict=True):
        if isApart(node.GetNthControlPointPositionWorld(number), ras):
            node.SetNthControlPointPositionWorld(number, *ras)
    return [node.GetNthControlPointID(number) for number in numbers]
