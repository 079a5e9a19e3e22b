"""Prompts as control points of markups: set by clicks in a slice view, dragged, deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAMFineTunePanel.correction_display.box_markup import BoxMarkup
from SAMFineTunePanel.correction_display.control_points import definedPoints, isApart, setControlPoints
from SAMFineTunePanel.correction_display.own_changes import OwnChanges
from SAMFineTunePanel.correction_display.prompt_placing import PromptPlacing
from SAMFineTunePanel.scene.scene_removal import removeDisplayable
from SAMFineTunePanel.scene.transient_node import addTransientMarkups

if TYPE_CHECKING:
    from SAMFineTunePanel.correction.correction import Correction

POSITIVE, NEGATIVE, BOX = "positive", "negative", "box"

_COLOURS = {POSITIVE: (0.1, 0.9, 0.2), NEGATIVE: (1.0, 0.15, 0.1), BOX: (1.0, 0.85, 0.1)}
_POINTS = "vtkMRMLMarkupsFiducialNode"


@dataclass(frozen=True, eq=False)
class _Shown:
    """A control point that stands for a prompt of the slice in view.

    Attributes:
        pointID: of the control point.
        index: of the prompt; -1 for the first corner of a box whose second is not there yet.
        corner: of a box, which.
        ras: where it lies.
    """

    pointID: str
    index: int
    corner: int
    ras: np.ndarray


class PromptMarkups(VTKObservationMixin):
    """Shows the prompts of the slice in view, and makes prompts of what the user does to them.

    Nodes of markups report a change while they, or the view, are in the middle of it. So the control points are
    read a moment later, and what differs from the prompts was done by the user.

    Args:
        correction: whose prompts they are, until `remove`.
        onProblem: called with a text where a change is refused, and with "" when it is not.
        onPlacing: called when `placing` has changed.
    """

    def __init__(self, correction: Correction, onProblem: Callable[[str], None], onPlacing: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self._correction = correction
        self._onProblem = onProblem
        self._nodes: dict[str, slicer.vtkMRMLMarkupsNode] = {}
        self._outline = BoxMarkup(_COLOURS[BOX])
        self._shown: dict[str, list[_Shown]] = {POSITIVE: [], NEGATIVE: [], BOX: []}
        self._firstCorner: np.ndarray | None = None
        self._isDragged = self._wasMoved = False
        self._ownChanges = OwnChanges()
        self._placing = PromptPlacing(_POINTS, self._nodes, self._ownChanges, onPlacing, self._dropFirstCorner)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._lookAtNodes)
        correction.addListener(self._onCorrection)
        self.update()

    # What is seen from outside

    @property
    def placing(self) -> str:
        """The kind of prompts that clicks in slice views set; "" for none."""
        return self._placing.kind

    def place(self, kind: str) -> None:
        """Have clicks in slice views set prompts of a kind; "" none any more."""
        self._dropFirstCorner()
        if kind and self._correction.session.isOpen:
            self._node(kind)
            self._placing.start(kind)
        else:
            self._placing.stop()

    def update(self) -> None:
        """Show the prompts of the slice in view."""
        if not self._correction.session.isOpen:
            self._removeNodes()
            return
        wanted = self._wanted()
        for kind in (POSITIVE, NEGATIVE, BOX):
            if wanted[kind] or kind in self._nodes:
                self._show(kind, wanted[kind])
        self._showBox([ras for _index, _corner, ras in wanted[BOX]])

    def remove(self) -> None:
        """Show nothing any more, and take the nodes away."""
        self._correction.removeListener(self._onCorrection)
        self._removeNodes()

    # From prompts to control points

    def _wanted(self) -> dict[str, list[tuple[int, int, np.ndarray]]]:
        """The points of each kind: index of the prompt, corner, where it lies."""
        session = self._correction.session
        rasOf = session.segment.rasOf
        wanted: dict[str, list[tuple[int, int, np.ndarray]]] = {POSITIVE: [], NEGATIVE: [], BOX: []}
        for index, prompt in enumerate(session.current.prompts):
            if prompt.kind == "box":
                wanted[BOX] += [(index, corner, rasOf(place)) for corner, place in enumerate(prompt.corners)]
            else:
                wanted[POSITIVE if prompt.positive else NEGATIVE].append((index, 0, rasOf(prompt.at)))
        if self._firstCorner is not None:
            wanted[BOX].append((-1, 0, self._firstCorner))
        return wanted

    def _show(self, kind: str, wanted: list[tuple[int, int, np.ndarray]]) -> None:
        node, places = self._node(kind), [ras for _index, _corner, ras in wanted]
        with self._ownChanges:
            pointIDs = setControlPoints(node, places, lambda: self._placing.pausedFor(kind))
        self._shown[kind] = [_Shown(pointID, *each) for pointID, each in zip(pointIDs, wanted, strict=True)]

    def _showBox(self, corners: list[np.ndarray]) -> None:
        with self._ownChanges:
            self._outline.show(self._correction.session.segment, corners)

    def _node(self, kind: str) -> slicer.vtkMRMLMarkupsNode:
        node = self._nodes.get(kind)
        if node is not None and slicer.mrmlScene.IsNodePresent(node):
            return node
        names = {POSITIVE: _("Positive points"), NEGATIVE: _("Negative points"), BOX: _("Corners of the box")}
        with self._ownChanges:
            node = addTransientMarkups(_POINTS, names[kind], _COLOURS[kind])
        self._nodes[kind] = node
        self._shown[kind] = []
        markups = slicer.vtkMRMLMarkupsNode
        for event in (markups.PointPositionDefinedEvent, markups.PointModifiedEvent, markups.PointRemovedEvent):
            self.addObserver(node, event, self._onPoints)
        self.addObserver(node, markups.PointStartInteractionEvent, self._onDragStart)
        self.addObserver(node, markups.PointEndInteractionEvent, self._onDragEnd)
        return node

    def _removeNodes(self) -> None:
        self._timer.stop()
        self._firstCorner = None
        self._placing.stop()
        self._placing.removeObservers()
        self.removeObservers()
        for node in self._nodes.values():
            removeDisplayable(node)
        self._nodes.clear()
        self._outline.remove()

    # From control points to prompts

    def _lookAtNodes(self) -> None:
        if self._correction.session.state != "ready":
            return
        for kind, node in list(self._nodes.items()):
            if slicer.mrmlScene.IsNodePresent(node):
                self._lookAt(kind, node)
        self._wasMoved = self._isDragged

    def _lookAt(self, kind: str, node: slicer.vtkMRMLMarkupsNode) -> None:
        found = {
            node.GetNthControlPointID(number): np.array(node.GetNthControlPointPositionWorld(number))
            for number in definedPoints(node)
        }
        shown = {each.pointID: each for each in self._shown[kind]}
        removed = [each for pointID, each in shown.items() if pointID not in found]
        moved = [each for each in shown.values() if each not in removed and isApart(each.ras, found[each.pointID])]
        placed = [ras for pointID, ras in found.items() if pointID not in shown]
        if not removed and not moved and not placed:
            self._followMouse(kind, node)
            return
        try:
            if removed:
                self._takeRemoved(removed)
            for each in moved:
                self._takeMoved(each, found[each.pointID])
            for ras in placed:
                self._takePlaced(kind, ras)
        except ValueError as error:
            self._onProblem(str(error))
        else:
            self._onProblem("")
        # What could not be is put back as it was.
        self.update()

    def _takeRemoved(self, removed: list[_Shown]) -> None:
        if any(each.index < 0 for each in removed):
            self._firstCorner = None
        # From behind, so that the others keep their places.
        for index in sorted({each.index for each in removed if each.index >= 0}, reverse=True):
            self._correction.deletePrompt(index)

    def _takeMoved(self, each: _Shown, ras: np.ndarray) -> None:
        if each.index < 0:
            self._firstCorner = ras
            return
        self._correction.movePrompt(each.index, ras, each.corner, isGoingOn=self._wasMoved)

    def _takePlaced(self, kind: str, ras: np.ndarray) -> None:
        if kind != BOX:
            self._correction.addPoint(ras, positive=kind == POSITIVE)
        elif self._firstCorner is None:
            # Refused at once where the box could not be, not after its second corner.
            self._correction.requireInView(ras)
            self._firstCorner = ras
        else:
            first, self._firstCorner = self._firstCorner, None
            self._correction.addBox(first, ras)
            self.place(POSITIVE)

    def _followMouse(self, kind: str, node: slicer.vtkMRMLMarkupsNode) -> None:
        """While a box is being drawn its other corner is where the mouse is."""
        if kind == BOX and self._firstCorner is not None:
            for number in range(node.GetNumberOfControlPoints()):
                if node.GetNthControlPointPositionStatus(number) == node.PositionPreview:
                    self._showBox([self._firstCorner, np.array(node.GetNthControlPointPositionWorld(number))])

    def _dropFirstCorner(self) -> None:
        if self._firstCorner is not None:
            self._firstCorner = None
            self.update()

    def _onPoints(self, caller: object = None, event: object = None) -> None:
        if not self._ownChanges.areMade:
            self._timer.start()

    def _onDragStart(self, caller: object = None, event: object = None) -> None:
        self._isDragged = True

    def _onDragEnd(self, caller: object = None, event: object = None) -> None:
        self._isDragged = False
        self._timer.start()

    def _onCorrection(self, correction: Correction, event: str) -> None:
        if event == "slice":
            self._firstCorner = None
        if event in ("slice", "prompts", "state"):
            self.update()
