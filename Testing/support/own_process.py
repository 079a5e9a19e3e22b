"""Scripts on the module in a process of their own, where nothing was imported before."""

from __future__ import annotations

import subprocess
import sys

from Testing.support.repository import MODULE, REPOSITORY


def run_script(script: str) -> str:
    """What a script prints; sys.argv[1] in it is the module's file."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(MODULE)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
