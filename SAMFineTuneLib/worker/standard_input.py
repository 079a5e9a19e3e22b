"""Reads lines on standard input without ever waiting for one."""

from __future__ import annotations

import os
import sys

from SAMFineTuneLib.worker.line_splitter import LineSplitter

# Bounds one call of `poll`, so that a client that writes faster than this process reads does not
# keep the work from going on.
_MOST_AT_ONCE = 4 << 20
_PIECE = 1 << 16

if sys.platform == "win32":
    import ctypes
    import msvcrt

    def _has_data(descriptor: int) -> bool:
        """Whether a read of the pipe returns at once; OSError if it is closed or no pipe.

        A thread that waits in a read would not do: it would block the start-up code of every DLL
        that asks for the type of its standard input, and so the import of numpy or torch.
        """
        waiting = ctypes.c_ulong(0)
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
        peek = ctypes.windll.kernel32.PeekNamedPipe
        if not peek(handle, None, 0, None, ctypes.byref(waiting), None):
            raise OSError("standard input is closed")
        return waiting.value > 0
else:
    import select

    def _has_data(descriptor: int) -> bool:
        """Whether a read returns at once."""
        return bool(select.select([descriptor], [], [], 0)[0])


class StandardInputLines:
    """The lines that a client writes on this process's standard input.

    The end of the input means only that no more lines come. Of a line of more than 16 MiB only the
    beginning is returned, as by `LineSplitter`.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._splitter = LineSplitter()
        # A terminal is not read: the shell would stop a background process that does so.
        self._open = not os.isatty(descriptor)

    @property
    def ended(self) -> bool:
        """Whether no more lines can come: the client has closed its end, or there is no input."""
        return not self._open

    def poll(self) -> list[str]:
        """The lines that have come since the last call, without line ends and surrounding blanks.

        One call reads a limited amount; the next call goes on. When the input has ended, a last
        line without a line end is returned too.
        """
        lines: list[str] = []
        left = _MOST_AT_ONCE
        try:
            while left > 0 and self._open and _has_data(self._descriptor):
                data = os.read(self._descriptor, _PIECE)
                left -= len(data)
                self._open = bool(data)
                lines += self._splitter.feed(data)
        except (OSError, ValueError):
            self._open = False
        if not self._open:
            lines += self._splitter.rest()
        return [line.strip() for line in lines]
