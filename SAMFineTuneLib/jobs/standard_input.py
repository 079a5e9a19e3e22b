"""Lines on standard input, read without ever waiting for one."""

from __future__ import annotations

import os
import sys

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
    """What a client writes on our standard input; its end means nothing but that no more comes."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._begun = b""
        # A terminal belongs to the shell: reading it from the background would stop the process.
        self._open = not os.isatty(descriptor)

    @property
    def ended(self) -> bool:
        """Whether no more can come: the client has closed its end, or there is none."""
        return not self._open

    def poll(self) -> list[str]:
        """The lines that have come since the last call, without their ends and blanks."""
        lines: list[str] = []
        try:
            while self._open and _has_data(self._descriptor):
                data = os.read(self._descriptor, 4096)
                self._open = bool(data)
                *whole, self._begun = (self._begun + data).split(b"\n")
                lines += [line.decode("utf-8", errors="replace").strip() for line in whole]
        except (OSError, ValueError):
            self._open = False
        return lines
