"""The Python that runs the library's processes, and the environment that it is given."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import qt

# Set by Slicer for its own Python; another Python would take its modules from there.
_SLICERS_PYTHON_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONSTARTUP")


def pythonProgram() -> Path:
    """The Python that runs the worker: Slicer's PythonSlicer, or, outside of Slicer, the one that runs this."""
    found = shutil.which("PythonSlicer")
    return Path(found or sys.executable)


def environmentFor(program: Path) -> dict[str, str]:
    """Slicer's environment; without its Python settings where the program is not Slicer's own Python."""
    if program.stem.lower() == "pythonslicer":
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if name not in _SLICERS_PYTHON_VARIABLES}


def processEnvironment(program: Path) -> qt.QProcessEnvironment:
    """What a process of the library is started with."""
    from SAMFineTuneLib.worker.environment import worker_environment

    environment = qt.QProcessEnvironment()
    for name, value in worker_environment(environmentFor(program)).items():
        environment.insert(name, value)
    return environment
