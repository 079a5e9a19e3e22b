"""Keys for correcting, as long as a correction is open and the module is in view."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import qt
import slicer


class CorrectionKeys:
    """Keys of the main window, so that they work wherever the mouse is, over the slice views too.

    Args:
        actions: key, as Qt writes it, → what it does.
        fallback: the window of this widget is taken where there is no main window.
    """

    def __init__(self, actions: Mapping[str, Callable[[], None]], fallback) -> None:
        self._actions = dict(actions)
        self._fallback = fallback
        self._window = None
        self._shortcuts: list = []

    @property
    def areOn(self) -> bool:
        """Whether the keys do anything."""
        return bool(self._shortcuts)

    def turn(self, on: bool) -> None:
        """Take the keys, or give them back to whoever had them before."""
        if on == self.areOn:
            return
        if not on:
            for shortcut in self._shortcuts:
                shortcut.enabled = False
                shortcut.setParent(None)
                shortcut.deleteLater()
            self._shortcuts = []
            return
        self._window = slicer.util.mainWindow() or self._fallback.window()
        for key, action in self._actions.items():
            shortcut = qt.QShortcut(self._window)
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.autoRepeat = False
            for signal in ("activated()", "activatedAmbiguously()"):
                # Where Slicer has the key for something else, correcting goes first while it is open.
                shortcut.connect(signal, lambda action=action: self._act(action))
            self._shortcuts.append(shortcut)

    def _act(self, action: Callable[[], None]) -> None:
        focus = self._window.focusWidget()
        if isinstance(focus, (qt.QLineEdit, qt.QAbstractSpinBox, qt.QPlainTextEdit, qt.QTextEdit)):
            # Somebody is typing: Enter ends that, and undo takes letters back.
            return
        action()
