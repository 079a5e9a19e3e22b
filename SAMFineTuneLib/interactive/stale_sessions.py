"""Stale sessions: folders that a correction leaves behind when the program crashes that ran it."""

from __future__ import annotations

import shutil

from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.interrupted import job_paths

# The kind of these folders, as `new_job_folder` takes it.
CORRECTION = "correct"


def remove_stale_sessions() -> None:
    """Deletes the folders of corrections whose program no longer runs.

    They hold a patient's image, and a correction cannot be resumed from them. A folder that was
    never locked is left alone: another program may be about to start with it.
    """
    for path in job_paths():
        folder = JobFolder(path)
        is_left = folder.lock_file.exists() and folder.worker_at_work() is None
        if f"-{CORRECTION}-" in path.name and is_left:
            # Errors are ignored here; `storage clear` reports why a folder cannot be deleted.
            shutil.rmtree(path, ignore_errors=True)
