"""Fixtures for tests that write a scene to files and read it back."""

from __future__ import annotations

import pytest

from Testing.support.scene_geometries import GEOMETRIES


@pytest.fixture(params=GEOMETRIES)
def ijk_to_ras(request, scene):
    return GEOMETRIES[request.param]
