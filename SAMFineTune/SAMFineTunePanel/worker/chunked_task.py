"""Work on the scene in small chunks, between which Slicer draws and handles events."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

import qt

_TURN_S = 0.012


class ChunkedTask:
    """Works through chunks, one after the other, while Slicer stays alive.

    Args:
        chunks: each step does one.
        whenDone: called after the last.
        whenFailed: called with an OSError or ValueError of a chunk: a full disk, a node that changed.
    """

    def __init__(
        self, chunks: Generator[None, None, None], whenDone: Callable[[], None], whenFailed: Callable[[Exception], None]
    ) -> None:
        self._chunks = chunks
        self._whenDone, self._whenFailed = whenDone, whenFailed
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._doChunks)

    def start(self) -> None:
        """Begin; returns at once."""
        self._timer.start()

    def stop(self) -> None:
        """Do no more; files that a chunk has open are closed."""
        self._timer.stop()
        self._chunks.close()

    def _doChunks(self) -> None:
        until = time.monotonic() + _TURN_S
        try:
            while time.monotonic() < until:
                next(self._chunks)
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
