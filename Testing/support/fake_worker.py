"""A worker whose work is pretended: `fake_worker.py BEHAVIOUR JOB_DIR [--parent PID]`."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.tasks import worker
from SAMFineTuneLib.tasks.runners import RUNNERS
from SAMFineTuneLib.worker.events import EventWriter

SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]
Behaviour = Callable[[Any, JobFolder, EventWriter, Control], dict[str, Any]]


def done(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    for step in range(1, 4):
        events.progress(step, 3, phase="fine-tune", loss=1 / step)
    events.warning("2 voxels are not finite: größer als erwartet")
    return {"output": job.output, "kind": job.kind, "nan": float("nan")}


def noisy(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    print("from Python: äöü \u2028 €")
    print("without an end", end="")
    os.write(1, b"\nfrom the descriptor \xff\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    library = ctypes.CDLL(None)
    library.printf(b"from C\n")
    events.progress(1, 1)
    library.printf(b"held back by C")
    return {"done": True}


def loop(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    for step in range(1200):
        control.raise_if_cancelled()
        if control.finish_requested():
            return {"steps": step, "finished_early": True}
        events.progress(step, 1200)
        time.sleep(0.05)
    return {"steps": 1200}


def long_step(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    child = subprocess.Popen(SLEEP)
    events.progress(child.pid, phase="child")
    time.sleep(120)
    return {}


def resumable(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    if folder.has_checkpoint():
        return {"resumed": True}
    folder.checkpoint_folder.mkdir()
    (folder.checkpoint_folder / "state").touch()
    return loop(job, folder, events, control)


def fault(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    raise ZeroDivisionError("a fault\nin two lines")


def refuse(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    raise InputError("label 7 is absent", "Name labels that occur: 1, 5", "no_label")


def exhausted(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    raise MemoryError


def leave(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    sys.exit(0)


def die(job: Any, folder: JobFolder, events: EventWriter, control: Control) -> dict[str, Any]:
    print("last words", file=sys.stderr, flush=True)
    os.abort()


def hang_at_end(
    job: Any, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    threading.Thread(target=time.sleep, args=(120,)).start()
    return {"done": True}


def pretend(behaviour: str) -> None:
    """Let all kinds of job be done by one of the functions above."""
    work: Behaviour = globals()[behaviour]
    RUNNERS.update(dict.fromkeys(("finetune", "apply", "evaluate"), work))


if __name__ == "__main__":
    pretend(sys.argv[1])
    watched = int(sys.argv[4]) if "--parent" in sys.argv else None
    sys.exit(worker.main(Path(sys.argv[2]), watched))
