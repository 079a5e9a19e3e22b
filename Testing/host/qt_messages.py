"""Qt's own warnings: collected as errors, for they tell of widgets put together wrongly."""

from __future__ import annotations

from PySide6 import QtCore

from .collected_errors import errors

_SERIOUS = {
    QtCore.QtMsgType.QtWarningMsg,
    QtCore.QtMsgType.QtCriticalMsg,
    QtCore.QtMsgType.QtFatalMsg,
}
# Said by the platform without windows, or by Qt about the machine, not about the program.
_HARMLESS = ("This plugin does not support", "QStandardPaths:", "propagateSizeHints", "fontconfig")


def install() -> None:
    """Takes Qt's messages from now on."""
    QtCore.qInstallMessageHandler(_take)


def _take(kind: QtCore.QtMsgType, context: QtCore.QMessageLogContext, text: str) -> None:
    if kind in _SERIOUS and not any(words in text for words in _HARMLESS):
        errors.append(f"Qt: {text}")
