"""Lets the library's tests be collected and run with few searches for garbage.

What the packages and the tests themselves have made stays until the end. Searching it again and
again took a tenth of the processor time.
"""

from __future__ import annotations

import gc

import pytest

gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Garbage is looked for from now on, among what is new."""
    gc.freeze()
    gc.enable()
