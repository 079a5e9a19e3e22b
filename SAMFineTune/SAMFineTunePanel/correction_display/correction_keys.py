"""Keys for correcting, as long as a correction is open and the module is in view."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import qt
import slicer

_TYPED_INTO = ("QLineEdit", "QAbstractSpinBox", "QPlainTextEdit", "QTextEdit")
_FOCUS_CHANGED = "focusChanged(QWidget*,QWidget*)"


class CorrectionKeys:
    """Keys of the main window, so that they work wherever the mouse is, over the slice views too.

    While somebody types they are off: a line edit keeps letters for itself, but Enter would be taken from it.

    Args:
        actions: key, as Qt writes it, → what it does.
        fallback: the window of this widget is taken where there is no main window.
    """

    def __init__(self, actions: Mapping[str, Callable[[], None]], fallback: qt.QWidget) -> None:
        self._actions = dict(actions)
        self._fallback = fallback
        self._window: qt.QWidget | None = None
        self._shortcuts: list[qt.QShortcut] = []

    @property
    def areOn(self) -> bool:
        """Whether the keys do anything, as long as nobody types."""
        return bool(self._shortcuts)

    def turn(self, on: bool) -> None:
        """Take the keys, or give them back to whoever had them before."""
        if on == self.areOn:
            return
        if on:
            self._take()
            return
        for shortcut in self._shortcuts:
            shortcut.enabled = False
            # Not at once: it may be its own key that ends the correction. Its window keeps it until then.
            shortcut.deleteLater()
        if self._window is not None:
            self._window.disconnect("destroyed()", self._letGo)
        self._letGo()

    def _take(self) -> None:
        window = self._window = slicer.util.mainWindow() or self._fallback.window()
        self._shortcuts = [_shortcut(window, key, action) for key, action in self._actions.items()]
        window.connect("destroyed()", self._letGo)
        slicer.app.connect(_FOCUS_CHANGED, self._onFocusChanged)
        self._onFocusChanged()

    def _letGo(self) -> None:
        """The shortcuts are gone, with their window where that was closed."""
        slicer.app.disconnect(_FOCUS_CHANGED, self._onFocusChanged)
        self._window, self._shortcuts = None, []

    def _onFocusChanged(self) -> None:
        # Not taken from the signal, which is also emitted for widgets that are being destroyed.
        focused = slicer.app.focusWidget()
        # To Python the classes of Slicer's widgets are not derived from each other, so isinstance() would not do.
        isTyping = focused is not None and any(focused.inherits(name) for name in _TYPED_INTO)
        for shortcut in self._shortcuts:
            shortcut.enabled = not isTyping


def _shortcut(window: qt.QWidget, key: str, action: Callable[[], None]) -> qt.QShortcut:
    shortcut = qt.QShortcut(window)
    shortcut.setKey(qt.QKeySequence(key))
    shortcut.autoRepeat = False
    for signal in ("activated()", "activatedAmbiguously()"):
        # Where Slicer has the key for something else, correcting goes first while it is open.
        shortcut.connect(signal, action)
    return shortcut
