"""Fetching official weights in a worker, so that it can be cancelled and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import CheckpointJob
from SAMFineTuneLib.networks.spec import find
from SAMFineTuneLib.weights.download import get_checkpoint
from SAMFineTuneLib.worker.events import EventWriter

_MEGABYTE = 10**6
_PROGRESS_EVERY_S = 0.3


def run_checkpoint(
    job: CheckpointJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    """Fetches the official weights of a backbone into the cache; steps are megabytes.

    Raises:
        InputError: no weights for this backbone, a source that cannot be reached, no space left, or
            a file that is not the official one.
        Cancelled: the user asked to stop; the part that has arrived is kept for the next time.
    """
    spec = find(job.backbone)
    events.log(f"{spec.name}: {spec.description}; licence {spec.licence}")
    control.raise_if_cancelled()
    path = get_checkpoint(job.backbone, _report(events, control))
    return {"name": job.backbone, "path": str(path)}


def _report(events: EventWriter, control: Control) -> Callable[[int, int], None]:
    started = time.monotonic()
    began_at: int | None = None
    last = float("-inf")

    def report(here: int, size: int) -> None:
        nonlocal began_at, last
        control.raise_if_cancelled()
        now = time.monotonic()
        if began_at is None:
            began_at = here
        if here < size and now < last + _PROGRESS_EVERY_S:
            return
        last = now
        arrived = here - began_at
        eta = (size - here) * (now - started) / arrived if arrived else None
        events.progress(here // _MEGABYTE, size // _MEGABYTE, phase="download", eta_s=eta)

    return report
