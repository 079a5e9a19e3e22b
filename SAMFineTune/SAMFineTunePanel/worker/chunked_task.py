"""Work on the scene in small pieces, between which Slicer draws and listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import qt

_PIECE_S = 0.02


class Piecework:
    """Does pieces of work one after the other while Slicer stays alive.

    Args:
        pieces: each step does one.
        whenDone: called after the last.
        whenFailed: called with an OSError or ValueError of a piece: a full disk, a node that changed.
    """

    def __init__(
        self, pieces: Iterator[None], whenDone: Callable[[], None], whenFailed: Callable[[Exception], None]
    ) -> None:
        self._pieces = pieces
        self._whenDone, self._whenFailed = whenDone, whenFailed
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._doPieces)

    def start(self) -> None:
        """Begin; returns at once."""
        self._timer.start()

    def stop(self) -> None:
        """Do no more; files that a piece has open are closed."""
        self._timer.stop()
        self._pieces.close()

    def _doPieces(self) -> None:
        until = time.monotonic() + _PIECE_S
        try:
            while time.monotonic() < until:
                next(self._pieces)
        except StopIteration:
            self._timer.stop()
            self._whenDone()
        except (OSError, ValueError) as error:
            self._timer.stop()
            self._whenFailed(error)
        except BaseException:
            # A fault in the program goes where Slicer shows faults, once.
            self._timer.stop()
            raise
