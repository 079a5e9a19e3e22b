"""Bytes as they come from a pipe to whole lines of text."""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")
# Events and requests are far shorter; beyond this, something else writes and nobody can read it.
LONGEST_LINE = 16 << 20
_KEPT_OF_LONGER = 2000
_SHORTENED = re.compile(r" … \((\d+) bytes in one line\)$")


class LineSplitter:
    """Collects what arrives and gives the lines that are whole.

    Lines end in a line feed, a carriage return or both. The bytes are UTF-8, wherever they are
    cut; what is not becomes the replacement character. Of a line beyond 16 MiB only the beginning
    comes out, with its length in words, and no more than that is kept meanwhile.
    """

    def __init__(self) -> None:
        self._begun = bytearray()
        self._length = 0
        self._ended_in_return = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete, without their ends."""
        if not data:
            return []
        if self._ended_in_return and data.startswith(b"\n"):
            # The other half of a line end that was cut in two.
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
        """What came after the last line end: one line, or none. For the end of the pipe."""
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
    """How long the line was in bytes of which only the beginning came out; None of a whole line."""
    found = _SHORTENED.search(line[-60:])
    return None if found is None else int(found[1])
