"""Keeps Python alive under PySide6 6.12, which loses references to None, True and False.

From Python 3.12 on they cannot be lost. Before, the interpreter aborts ("deallocating None") after
some thousands of calls, unless they have references to spare.
"""

from __future__ import annotations

import ctypes
import sys

_SPARE = 1 << 40


def give_spare_references() -> None:
    """Raises the counts of references beyond what any run can lose."""
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            # The count is the first field of every object of CPython.
            ctypes.c_ssize_t.from_address(id(constant)).value += _SPARE
