"""The parts of the library that Slicer's own process uses; torch is not among them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator

# In this order none takes long, because the large packages that they share come first: 60 ms at most on two cores
# of a laptop, 0.4 s together.
_PARTS = (
    "pydantic_core.core_schema",
    "pydantic.json_schema",
    "pydantic.main",
    "SAMFineTuneLib.models.library",
    "SAMFineTuneLib.worker.events",
    "SAMFineTuneLib.jobs.schema",
    "SAMFineTuneLib.jobs.client",
    "SAMFineTuneLib.jobs.interrupted",
    "SAMFineTuneLib.interactive.protocol",
    "SAMFineTuneLib.interactive.client",
    "SAMFineTuneLib.interactive.mask_files",
    "SAMFineTuneLib.slices.suggestion",
    "SAMFineTuneLib.weights.availability",
)


def areLibraryPartsImported() -> bool:
    """Whether nothing is left to import."""
    return all(part in sys.modules for part in _PARTS)


def importingLibraryParts() -> Generator[None, None, None]:
    """Import them, one a step, so that no job and no correction has to wait for them.

    Raises:
        ImportError: a package is missing.
    """
    for part in _PARTS:
        importlib.import_module(part)
        yield
