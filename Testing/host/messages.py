"""Message boxes of `slicer.util`: recorded and answered by the test, never waited for."""

from __future__ import annotations

import logging
from typing import Any

import slicer
from PySide6.QtWidgets import QMessageBox

from . import dialogs
from .collected_errors import record

_KINDS = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}


def _message_display(
    level: int, text: str, testing_return_value: Any, *rest: Any, **named: Any
) -> Any:
    dialogs.tell(_KINDS[level], text)
    if level == logging.ERROR:
        record(f"errorDisplay: {text}")
    return testing_return_value


def _confirm(text: str, windowTitle: str | None = None, parent: Any = None, **named: Any) -> bool:
    """The test's answer; without one False, as in Slicer's testing mode.

    (There `_messageDisplay` gives True, which is then compared with the button and is not it.)
    """
    return dialogs.confirm(text)


def _message_box(text: str, parent: Any = None, **named: Any) -> Any:
    dialogs.tell("message box", text)
    return QMessageBox.StandardButton.Ok


def _delay_display(message: str, autoCloseMsec: int = 1000, *rest: Any, **named: Any) -> None:
    dialogs.tell("delay", message)
    slicer.app.processEvents()


def install() -> None:
    """Replaces the functions that all of `slicer.util`'s messages go through."""
    slicer.util._messageDisplay = _message_display
    slicer.util.messageBox = _message_box
    slicer.util.delayDisplay = _delay_display
    for name in ("confirmOkCancelDisplay", "confirmYesNoDisplay", "confirmRetryCloseDisplay"):
        setattr(slicer.util, name, _confirm)
