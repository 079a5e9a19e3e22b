"""The environment variables that a worker is started with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from SAMFineTuneLib.worker.processor_sharing import share_processors


def worker_environment(base: Mapping[str, str]) -> dict[str, str]:
    """An environment with what the worker needs: UTF-8, unbuffered output, and this library.

    Args:
        base: the client's own environment, or a copy from which the client removed variables.
    """
    environment = dict(base, PYTHONIOENCODING="utf-8", PYTHONUTF8="1", PYTHONUNBUFFERED="1")
    # Without this, a file in the current folder could be imported in place of a module.
    environment["PYTHONSAFEPATH"] = "1"
    share_processors(environment)
    root = Path(__file__).resolve().parents[2]
    # If the library is installed, the worker finds it without PYTHONPATH. Adding site-packages to
    # PYTHONPATH would let a package there replace a module of the standard library.
    if root.name not in ("site-packages", "dist-packages"):
        paths = [str(root), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment
