"""The line around a box prompt in slice views."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.scene_removal import removeDisplayable
from SAMFineTunePanel.scene.transient_node import addTransientMarkups
from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment

_CURVE = "vtkMRMLMarkupsClosedCurveNode"


class BoxMarkup:
    """A closed curve without visible control points.

    Args:
        colour: red, green, blue, from 0 to 1.
    """

    def __init__(self, colour: tuple[float, float, float]) -> None:
        self._colour = colour
        self._node: slicer.vtkMRMLMarkupsClosedCurveNode | None = None

    def show(self, segment: CorrectedSegment, corners: list[np.ndarray]) -> None:
        """Show the line around the last two corners.

        Args:
            segment: on whose slices the box lies.
            corners: RAS of each; fewer than two show nothing.
        """
        if len(corners) < 2:
            if self._node is not None:
                self._node.GetDisplayNode().SetVisibility(False)
            return
        if self._node is None or not slicer.mrmlScene.IsNodePresent(self._node):
            self._node = addTransientMarkups(_CURVE, _("Box"), self._colour)
            self._node.SetCurveTypeToLinear()
            self._node.SetLocked(True)
        for number, ras in enumerate(_around(segment, corners[-2], corners[-1])):
            if number < self._node.GetNumberOfControlPoints():
                self._node.SetNthControlPointPositionWorld(number, *ras)
            else:
                self._node.AddControlPointWorld(*ras)
                self._node.SetNthControlPointVisibility(number, False)
        self._node.GetDisplayNode().SetVisibility(True)

    def remove(self) -> None:
        """Take the node out of the scene."""
        removeDisplayable(self._node)
        self._node = None


def _around(segment: CorrectedSegment, first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """The four corners of the box of a slice that has these two as opposite ones."""
    places = np.stack([(np.linalg.inv(segment.grid.ijkToRas) @ [*each, 1.0])[:3] for each in (first, second)])
    across, down = (axis for axis in range(3) if axis != segment.axis)
    corners = []
    for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
        place = places[0].copy()
        place[across], place[down] = places[a, across], places[b, down]
        corners.append(segment.rasOf(place))
    return corners
