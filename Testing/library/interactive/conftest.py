"""Sessions whose messages depend on what they are asked, not on how fast the machine is."""

from __future__ import annotations

import math

import pytest

from SAMFineTuneLib.interactive import server


@pytest.fixture(autouse=True)
def no_progress_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many slices are embedded is told when all are, and not from time to time."""
    monkeypatch.setattr(server, "_REPORT_EVERY_S", math.inf)
