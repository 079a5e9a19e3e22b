"""What clicks do in Slicer's place mode."""

from __future__ import annotations

from typing import NamedTuple

import slicer


class PlaceMode(NamedTuple):
    """The node of markups into which clicks place points, and whether more than one click does."""

    className: str | None
    nodeID: str | None
    isPersistent: bool

    @classmethod
    def now(cls) -> PlaceMode:
        """The place mode at present."""
        logic = slicer.app.applicationLogic()
        selection = logic.GetSelectionNode()
        return cls(
            selection.GetActivePlaceNodeClassName(),
            selection.GetActivePlaceNodeID(),
            bool(logic.GetInteractionNode().GetPlaceModePersistence()),
        )

    def apply(self) -> None:
        """Have it so; the mode stays as it is."""
        logic = slicer.app.applicationLogic()
        selection = logic.GetSelectionNode()
        selection.SetReferenceActivePlaceNodeClassName(self.className)
        selection.SetReferenceActivePlaceNodeID(self.nodeID)
        logic.GetInteractionNode().SetPlaceModePersistence(self.isPersistent)
