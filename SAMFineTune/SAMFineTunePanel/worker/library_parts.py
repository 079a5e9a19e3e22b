"""The parts of the library that Slicer's own process uses."""

from __future__ import annotations


def importLibraryParts() -> None:
    """Import them now, while nothing is waiting: the first time it takes some tenths of a second.

    torch is not among them; it is imported by the worker alone.

    Raises:
        ImportError: a package is missing.
    """
    import SAMFineTuneLib.interactive.client
    import SAMFineTuneLib.interactive.mask_files
    import SAMFineTuneLib.jobs.client
    import SAMFineTuneLib.jobs.interrupted
    import SAMFineTuneLib.jobs.schema
    import SAMFineTuneLib.models.library
    import SAMFineTuneLib.slices.suggestion  # noqa: F401
