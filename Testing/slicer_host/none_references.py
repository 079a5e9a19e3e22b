"""Keeps Python alive under PySide6 6.12, which loses a reference to None in many calls.

From Python 3.12 on None cannot be lost. Before, the interpreter aborts ("deallocating None") after
some thousands of calls, unless None has references to spare.
"""

from __future__ import annotations

import ctypes
import sys

_SPARE = 1 << 40


def give_none_spare_references() -> None:
    """Raises the count of references to None beyond what any run can lose."""
    if sys.version_info < (3, 12):
        # The count is the first field of every object of CPython.
        ctypes.c_ssize_t.from_address(id(None)).value += _SPARE
