"""Slicer's place mode while clicks in slice views set prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import slicer
from slicer.util import VTKObservationMixin

from SAMFineTunePanel.correction_display.own_changes import OwnChanges
from SAMFineTunePanel.scene.place_mode import PlaceMode


class PromptPlacing(VTKObservationMixin):
    """Has clicks set control points of one kind of prompt, until the user leaves that mode.

    Args:
        className: of the nodes.
        nodes: kind → node with its control points; may grow.
        ownChanges: within which nodes and modes are changed from here.
        onChanged: called when `kind` has changed.
        onLeft: called when the user has left the mode, after `onChanged`.

    Attributes:
        kind: of the prompts that clicks set; "" for none.
    """

    def __init__(
        self,
        className: str,
        nodes: Mapping[str, slicer.vtkMRMLMarkupsNode],
        ownChanges: OwnChanges,
        onChanged: Callable[[], None],
        onLeft: Callable[[], None],
    ) -> None:
        VTKObservationMixin.__init__(self)
        self.kind = ""
        self._className, self._nodes = className, nodes
        self._ownChanges = ownChanges
        self._onChanged, self._onLeft = onChanged, onLeft
        self._before: PlaceMode | None = None

    def start(self, kind: str) -> None:
        """Have clicks set points of this kind, whose node is there."""
        self._observeModes()
        if not self.kind:
            self._before = PlaceMode.now()
        with self._ownChanges:
            PlaceMode(self._className, self._nodes[kind].GetID(), True).apply()
            _interaction().SwitchToPersistentPlaceMode()
        self._setKind(kind)

    def stop(self) -> None:
        """Have clicks set no points any more."""
        if self.kind:
            _interaction().SwitchToViewTransformMode()
        self._setKind("")

    @contextmanager
    def pausedFor(self, kind: str) -> Iterator[None]:
        """Leave the mode while points of this kind are removed.

        The view knows the point under the mouse by its number, which would change.
        """
        isPlacing = bool(kind) and self.kind == kind
        if isPlacing:
            _interaction().SwitchToViewTransformMode()
        yield
        if isPlacing:
            _interaction().SwitchToPersistentPlaceMode()

    def _setKind(self, kind: str) -> None:
        if kind == self.kind:
            return
        self.kind = kind
        ownIDs = {node.GetID() for node in self._nodes.values()}
        if not kind and self._before is not None and PlaceMode.now().nodeID in ownIDs:
            # What the user's own clicks were for is again what they are for.
            with self._ownChanges:
                self._before.apply()
        self._onChanged()

    def _observeModes(self) -> None:
        interaction = _interaction()
        changed = slicer.vtkMRMLInteractionNode.InteractionModeChangedEvent
        if not self.hasObserver(interaction, changed, self._onModeChanged):
            self.addObserver(interaction, changed, self._onModeChanged)
            selection = slicer.app.applicationLogic().GetSelectionNode()
            self.addObserver(selection, selection.ActivePlaceNodeIDChangedEvent, self._onOtherPlaced)

    def _onModeChanged(self, caller: object = None, event: object = None) -> None:
        if self._ownChanges.areMade or not self.kind:
            return
        interaction = _interaction()
        if interaction.GetCurrentInteractionMode() != interaction.Place:
            # The user has left it, by a right click or in the tool bar.
            self._leave()

    def _onOtherPlaced(self, caller: object = None, event: object = None) -> None:
        """The user has chosen other markups to be placed by clicks; the mode stays theirs."""
        if self._ownChanges.areMade or not self.kind or PlaceMode.now().nodeID == self._nodes[self.kind].GetID():
            return
        self._leave()

    def _leave(self) -> None:
        # In this order: while placing, to remove the first corner of a box is to place again behind it.
        self._setKind("")
        self._onLeft()


def _interaction() -> slicer.vtkMRMLInteractionNode:
    return slicer.app.applicationLogic().GetInteractionNode()
