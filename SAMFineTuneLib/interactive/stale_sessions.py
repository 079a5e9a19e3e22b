"""What corrections leave behind when the program that held them crashes."""

from __future__ import annotations

import shutil

from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.interrupted import job_paths

# Of folders, as `new_job_folder` takes it.
CORRECTION = "correct"


def remove_leftovers() -> None:
    """Deletes the folders of corrections whose program has gone.

    They hold a patient's image and nothing that one could go on with. A folder that was never
    locked is left alone: another program may be about to begin with it.
    """
    for path in job_paths():
        folder = JobFolder(path)
        is_left = folder.lock_file.exists() and folder.worker_at_work() is None
        if f"-{CORRECTION}-" in path.name and is_left:
            # What cannot be deleted is for `storage clear`, which says why.
            shutil.rmtree(path, ignore_errors=True)
