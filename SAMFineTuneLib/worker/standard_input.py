"""Lines on standard input, read without ever waiting for one."""

from __future__ import annotations

import os
import sys

from SAMFineTuneLib.worker.line_splitter import LineSplitter

# A client that writes faster than this is read must not keep the work from going on.
_MOST_AT_ONCE = 4 << 20
_PIECE = 1 << 16

if sys.platform == "win32":
    import ctypes
    import msvcrt

    def _has_data(descriptor: int) -> bool:
        """Whether a pipe can be read at once; OSError when it is closed or no pipe.

        A read that waits in another thread would block the start-up code of every DLL that asks
        for the type of its standard input, and so the import of numpy or torch.
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
    """What a client writes on our standard input; its end means nothing but that no more comes.

    Of a line beyond 16 MiB only the beginning comes out, as `LineSplitter` gives it.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._splitter = LineSplitter()
        # A terminal belongs to the shell: reading it from the background would stop the process.
        self._open = not os.isatty(descriptor)

    @property
    def ended(self) -> bool:
        """Whether no more can come: the client has closed its end, or there is none."""
        return not self._open

    def poll(self) -> list[str]:
        """The lines that have come since the last call, without their ends and blanks.

        Of very much that has come a part is read; the next call goes on. At the end of the input
        comes what was begun without a line end.
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
