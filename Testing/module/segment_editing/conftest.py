"""Fixtures for tests that write a mask into a segment."""

from __future__ import annotations

import pytest

from Testing.support import segment_edits


@pytest.fixture(params=[False, True], ids=["small labelmap", "whole labelmap"])
def corners(request, monkeypatch):
    monkeypatch.setattr(segment_edits, "CORNERS", request.param)
