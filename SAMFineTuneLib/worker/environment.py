"""The environment variables that a worker is started with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from SAMFineTuneLib.worker.processor_sharing import share_processors


def worker_environment(base: Mapping[str, str]) -> dict[str, str]:
    """An environment with what the worker needs: UTF-8, unbuffered output, and this library.

    Args:
        base: the client's own environment, or what is left of it after cleaning.
    """
    environment = dict(base, PYTHONIOENCODING="utf-8", PYTHONUTF8="1", PYTHONUNBUFFERED="1")
    # The current folder may be one of data; a file there must not take the place of a module.
    environment["PYTHONSAFEPATH"] = "1"
    share_processors(environment)
    root = Path(__file__).resolve().parents[2]
    # Installed, the worker finds the library by itself, and site-packages ahead of the standard
    # library would let a package of the same name replace a part of it.
    if root.name not in ("site-packages", "dist-packages"):
        paths = [str(root), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment
