"""Garbage is not looked for while packages are loaded, and is looked for afterwards as before."""

from __future__ import annotations

import gc

import pytest

from SAMFineTuneLib.worker.package_loading import loading_packages
from Testing.support.own_process import run_script

ENDS_QUICKLY = """
import atexit, gc
atexit.register(lambda: print("frozen", gc.get_freeze_count() > 0))
from SAMFineTuneLib.worker.package_loading import end_quickly
end_quickly()
print("before", gc.get_freeze_count())
"""


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_looked_for_while_packages_load(enabled: bool) -> None:
    if not enabled:
        gc.disable()
    try:
        with loading_packages():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_what_is_left_is_not_searched_at_the_end() -> None:
    assert run_script(ENDS_QUICKLY).split("\n")[:2] == ["before 0", "frozen True"]
