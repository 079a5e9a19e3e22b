"""Splits bytes that come from a pipe into whole lines of text."""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")
# Events and requests are far shorter: a longer line comes from something else and is not kept.
LONGEST_LINE = 16 << 20
_KEPT_OF_LONGER = 2000
_SHORTENED = re.compile(r" … \((\d+) bytes in one line\)$")


class LineSplitter:
    """Collects the bytes that arrive and returns the lines that are whole.

    Lines end in a line feed, a carriage return or both. The bytes are UTF-8 and may be cut inside a
    character; invalid bytes become the replacement character. For a line of more than 16 MiB only
    the beginning is kept and returned, followed by a text that says how long the line was.
    """

    def __init__(self) -> None:
        self._begun = bytearray()
        self._length = 0
        self._ended_in_return = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete, without their line ends."""
        if not data:
            return []
        if self._ended_in_return and data.startswith(b"\n"):
            # This completes a line end whose carriage return came with the bytes before.
            data = data[1:]
        self._ended_in_return = data.endswith(b"\r")
        *ends, begun = _LINE_END.split(data)
        lines = []
        for end in ends:
            self._append(end)
            lines.append(self._take())
        self._append(begun)
        return lines

    def rest(self) -> list[str]:
        """The text after the last line end: one line, or none. To be called at the pipe's end."""
        return [self._take()] if self._length else []

    def _append(self, part: bytes) -> None:
        self._length += len(part)
        self._begun += part
        if self._length > LONGEST_LINE:
            del self._begun[_KEPT_OF_LONGER:]

    def _take(self) -> str:
        text = self._begun.decode("utf-8", errors="replace")
        if self._length > LONGEST_LINE:
            text += f" … ({self._length} bytes in one line)"
        self._begun = bytearray()
        self._length = 0
        return text


def full_length(line: str) -> int | None:
    """The length in bytes of a line that was shortened; None if the line is whole."""
    found = _SHORTENED.search(line[-60:])
    return None if found is None else int(found[1])
