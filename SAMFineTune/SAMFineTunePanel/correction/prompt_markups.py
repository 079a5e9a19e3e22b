"""Prompts as control points of markups: set by clicks in a slice view, dragged, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAMFineTunePanel.scene.place_mode import PlaceMode
from SAMFineTunePanel.scene.scene_removal import removeNode
from SAMFineTunePanel.scene.transient_node import addTransientMarkups

POSITIVE, NEGATIVE, BOX = "positive", "negative", "box"

_COLOURS = {POSITIVE: (0.1, 0.9, 0.2), NEGATIVE: (1.0, 0.15, 0.1), BOX: (1.0, 0.85, 0.1)}
# Millimetres; a point that is not farther from where it should be has not been moved.
_TOLERANCE = 1e-3
_POINTS = "vtkMRMLMarkupsFiducialNode"
_CURVE = "vtkMRMLMarkupsClosedCurveNode"


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

    Nodes of markups tell of a change while they, or the view, are in the middle of it; so all of it is looked at
    a moment later, and what differs from the prompts was done by the user.

    Args:
        correction: whose prompts they are, until `remove`.
        complain: called with words where something cannot be, and with "" when it could.
        onPlacing: called when `placing` has changed.
    """

    def __init__(self, correction, complain: Callable[[str], None], onPlacing: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self.placing = ""
        self._correction = correction
        self._complain, self._onPlacing = complain, onPlacing
        self._nodes: dict[str, slicer.vtkMRMLMarkupsNode] = {}
        self._outline: slicer.vtkMRMLMarkupsClosedCurveNode | None = None
        self._shown: dict[str, list[_Shown]] = {POSITIVE: [], NEGATIVE: [], BOX: []}
        self._firstCorner: np.ndarray | None = None
        self._isQuiet = self._isDragged = self._wasMoved = False
        self._placedBefore: PlaceMode | None = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._lookAtNodes)
        correction.addListener(self._onCorrection)
        self.update()

    # What is seen from outside

    def place(self, kind: str) -> None:
        """Have clicks in slice views set prompts of a kind; "" none any more."""
        if not self._correction.session.isOpen:
            kind = ""
        self._dropFirstCorner()
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        if kind:
            node = self._node(kind)
            if not self.placing:
                self._placedBefore = PlaceMode.now()
            with self._quiet():
                PlaceMode(_POINTS, node.GetID(), True).apply()
                interaction.SwitchToPersistentPlaceMode()
        elif self.placing:
            interaction.SwitchToViewTransformMode()
        self._setPlacing(kind)

    def update(self) -> None:
        """Show the prompts of the slice in view."""
        if not self._correction.session.isOpen:
            self._removeNodes()
            return
        wanted = self._wanted()
        for kind in (POSITIVE, NEGATIVE, BOX):
            if wanted[kind] or kind in self._nodes:
                self._show(kind, wanted[kind])
        self._showOutline([ras for _index, _corner, ras in wanted[BOX]])

    def remove(self) -> None:
        """Show nothing any more, and take the nodes away."""
        self._correction.removeListener(self._onCorrection)
        self._removeNodes()

    # From prompts to control points

    def _wanted(self) -> dict[str, list[tuple[int, int, np.ndarray]]]:
        """Of each kind: index of the prompt, corner, where it lies."""
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
        node = self._node(kind)
        with self._quiet():
            surplus = _definedPoints(node)[len(wanted) :]
            if surplus:
                self._removePoints(node, surplus)
            for _index, _corner, ras in wanted[len(_definedPoints(node)) :]:
                node.AddControlPointWorld(*ras)
            points = _definedPoints(node)
            for number, (_index, _corner, ras) in zip(points, wanted, strict=True):
                if np.abs(np.subtract(node.GetNthControlPointPositionWorld(number), ras)).max() > _TOLERANCE:
                    node.SetNthControlPointPositionWorld(number, *ras)
        self._shown[kind] = [
            _Shown(node.GetNthControlPointID(number), *each) for number, each in zip(points, wanted, strict=True)
        ]

    def _removePoints(self, node: slicer.vtkMRMLMarkupsNode, numbers: list[int]) -> None:
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        isPlacing = bool(self.placing) and self._nodes.get(self.placing) is node
        if isPlacing:
            # The view knows the point under the mouse by its number, which would change.
            interaction.SwitchToViewTransformMode()
        points = [node.GetNthControlPointID(number) for number in numbers]
        for point in points:
            node.RemoveNthControlPoint(node.GetNthControlPointIndexByID(point))
        if isPlacing:
            interaction.SwitchToPersistentPlaceMode()

    def _showOutline(self, corners: list[np.ndarray]) -> None:
        """A line around the last two corners of a box."""
        if len(corners) < 2:
            if self._outline is not None:
                self._outline.GetDisplayNode().SetVisibility(False)
            return
        if self._outline is None or not slicer.mrmlScene.IsNodePresent(self._outline):
            with self._quiet():
                self._outline = _addNode(_CURVE, _("Box"), _COLOURS[BOX])
            self._outline.SetCurveTypeToLinear()
            self._outline.SetLocked(True)
        around = _around(self._correction.session.segment, corners[-2], corners[-1])
        with self._quiet():
            for number, ras in enumerate(around):
                if number < self._outline.GetNumberOfControlPoints():
                    self._outline.SetNthControlPointPositionWorld(number, *ras)
                else:
                    self._outline.AddControlPointWorld(*ras)
                    self._outline.SetNthControlPointVisibility(number, False)
        self._outline.GetDisplayNode().SetVisibility(True)

    def _node(self, kind: str) -> slicer.vtkMRMLMarkupsNode:
        node = self._nodes.get(kind)
        if node is not None and slicer.mrmlScene.IsNodePresent(node):
            return node
        names = {POSITIVE: _("Positive points"), NEGATIVE: _("Negative points"), BOX: _("Corners of the box")}
        with self._quiet():
            node = _addNode(_POINTS, names[kind], _COLOURS[kind])
        self._nodes[kind] = node
        self._shown[kind] = []
        markups = slicer.vtkMRMLMarkupsNode
        for event in (markups.PointPositionDefinedEvent, markups.PointModifiedEvent, markups.PointRemovedEvent):
            self.addObserver(node, event, self._onPoints)
        self.addObserver(node, markups.PointStartInteractionEvent, self._onDragStart)
        self.addObserver(node, markups.PointEndInteractionEvent, self._onDragEnd)
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        changed = slicer.vtkMRMLInteractionNode.InteractionModeChangedEvent
        if not self.hasObserver(interaction, changed, self._onModeChanged):
            self.addObserver(interaction, changed, self._onModeChanged)
            selection = slicer.app.applicationLogic().GetSelectionNode()
            self.addObserver(selection, selection.ActivePlaceNodeIDChangedEvent, self._onOtherPlaced)
        return node

    def _removeNodes(self) -> None:
        self._timer.stop()
        self._firstCorner = None
        if self.placing:
            slicer.app.applicationLogic().GetInteractionNode().SwitchToViewTransformMode()
        self.removeObservers()
        for node in (*self._nodes.values(), self._outline):
            if node is not None:
                display = node.GetDisplayNode()
                removeNode(node)
                removeNode(display)
        self._nodes.clear()
        self._outline = None
        self._setPlacing("")

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
            for number in _definedPoints(node)
        }
        shown = {each.pointID: each for each in self._shown[kind]}
        removed = [each for pointID, each in shown.items() if pointID not in found]
        moved = [each for each in shown.values() if each not in removed and _isApart(each.ras, found[each.pointID])]
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
            self._complain(str(error))
        else:
            self._complain("")
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
                    self._showOutline([self._firstCorner, np.array(node.GetNthControlPointPositionWorld(number))])

    def _dropFirstCorner(self) -> None:
        if self._firstCorner is not None:
            self._firstCorner = None
            self.update()

    def _setPlacing(self, kind: str) -> None:
        if kind == self.placing:
            return
        self.placing = kind
        if not kind and self._placedBefore is not None and PlaceMode.now().nodeID in self._ownIDs():
            # What the user's own clicks were for is again what they are for.
            with self._quiet():
                self._placedBefore.apply()
        self._onPlacing()

    def _ownIDs(self) -> set[str]:
        return {node.GetID() for node in self._nodes.values()}

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        was, self._isQuiet = self._isQuiet, True
        try:
            yield
        finally:
            self._isQuiet = was

    def _onPoints(self, caller=None, event=None) -> None:
        if not self._isQuiet:
            self._timer.start()

    def _onDragStart(self, caller=None, event=None) -> None:
        self._isDragged = True

    def _onDragEnd(self, caller=None, event=None) -> None:
        self._isDragged = False
        self._timer.start()

    def _onModeChanged(self, caller=None, event=None) -> None:
        if self._isQuiet or not self.placing:
            return
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        if interaction.GetCurrentInteractionMode() != interaction.Place:
            # The user has left it, by a right click or in the tool bar.
            self._stopPlacing()

    def _onOtherPlaced(self, caller=None, event=None) -> None:
        """The user has chosen other markups to be placed by clicks; the mode stays theirs."""
        if self._isQuiet or not self.placing or PlaceMode.now().nodeID == self._nodes[self.placing].GetID():
            return
        self._stopPlacing()

    def _stopPlacing(self) -> None:
        # In this order: while placing, to take the corner away is to place again behind it.
        self._setPlacing("")
        self._dropFirstCorner()

    def _onCorrection(self, correction, event: str) -> None:
        if event == "slice":
            self._firstCorner = None
        if event in ("slice", "prompts", "state"):
            self.update()


def _definedPoints(node: slicer.vtkMRMLMarkupsNode) -> list[int]:
    """Numbers of the control points that are set; one that follows the mouse is not."""
    return [
        number
        for number in range(node.GetNumberOfControlPoints())
        if node.GetNthControlPointPositionStatus(number) == node.PositionDefined
    ]


def _isApart(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.abs(first - second).max() > _TOLERANCE)


def _around(segment, first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """The four corners of the box of a slice that has these two as opposite ones."""
    places = np.stack([(np.linalg.inv(segment.grid.ijkToRas) @ [*each, 1.0])[:3] for each in (first, second)])
    across, down = (axis for axis in range(3) if axis != segment.axis)
    corners = []
    for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
        place = places[0].copy()
        place[across], place[down] = places[a, across], places[b, down]
        corners.append(segment.rasOf(place))
    return corners


def _addNode(className: str, name: str, colour: tuple[float, float, float]) -> slicer.vtkMRMLMarkupsNode:
    node = addTransientMarkups(className, name)
    display = node.GetDisplayNode()
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    for setColour in (display.SetColor, display.SetSelectedColor):
        setColour(*colour)
    return node
