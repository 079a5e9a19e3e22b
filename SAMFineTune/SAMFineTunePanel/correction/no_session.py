"""The refusal of what can be done only while a correction is open."""

from __future__ import annotations

from slicer.i18n import tr as _


class NoSessionError(ValueError):
    """No correction is open; the message is for the user."""

    def __init__(self) -> None:
        super().__init__(_("No correction is open. Start one first."))
