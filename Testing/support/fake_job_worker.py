"""A worker that pretends to fine-tune and to apply: `fake_job_worker.py JOB_DIR --parent PID`.

It loads no network, so it starts in a quarter of the real one's time and leaves the processors to
the process that is tested. All else is the real worker's: it tells events, obeys, is killed and
resumed, and ends as that one does.

A fine-tune takes a step every 50 ms, shows a picture at every 10th step, keeps a checkpoint from
the 30th step on and when it is cancelled, and writes a tuned model without weights; a file of
weights to start from is refused. With a time limit, however long, it makes half of the steps. An
apply finds each structure of the model in a part of the
volume's middle.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.channel_names import channel_names
from SAMFineTuneLib.files import written_whole
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.jobs.schema import ApplyJob, FinetuneJob
from SAMFineTuneLib.models.model_file import read_card
from SAMFineTuneLib.tasks import worker
from SAMFineTuneLib.tasks.runners import RUNNERS
from SAMFineTuneLib.worker.events import EventWriter
from Testing.support.model_files import write_model
from Testing.support.repository import REPOSITORY

STEP_S = 0.05
SAVED_EVERY = 30
PICTURE_EVERY = 10
# A picture of about the size of those of a fine-tune.
PICTURE = REPOSITORY / "Resources" / "Screenshots" / "demo.png"


def finetune(
    job: FinetuneJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    if job.checkpoint is not None:
        raise InputError(f"{job.checkpoint} cannot be read", "Choose another file", "no_weights")
    events.log("5 labelled slices")
    if job.weights == "random":
        events.warning("starter starts from random weights, as asked")
    state = folder.checkpoint_folder / "state"
    step, steps = int(state.read_text()) if state.exists() else 0, job.steps or 100
    last_step = steps if job.minutes is None else steps // 2
    while step < last_step and not control.finish_requested():
        time.sleep(STEP_S)
        if step % PICTURE_EVERY == 0:
            events.preview(PICTURE, 12)
        step += 1
        report_step(events, step, steps, "fine-tune")
        if step % SAVED_EVERY == 0 or control.cancelled():
            state.parent.mkdir(exist_ok=True)
            # A test kills the worker as soon as the file is there.
            with written_whole(state) as part:
                part.write_text(str(step))
        control.raise_if_cancelled()
    for last in (step + 1, step + 2):
        report_step(events, last, last, "final pass")
    training: dict[str, Any] = {"steps": step, "planned_steps": steps, "ending": "complete"}
    if step < last_step:
        training["ending"] = "finished on request"
    elif step < steps:
        more = {"minutes": 6.4, "steps": steps - step, "why": "time limit"}
        training |= {"ending": "time limit", "more_time": more}
    if job.go_on and job.initial_model is not None:
        before = read_card(job.initial_model)
        training["earlier_steps"] = before.training["steps"]
    names = channel_names([each.images for each in job.examples])
    write_model(
        job.output,
        list(job.label_names.values()),
        dsc=None if job.go_on else 0.912,
        training=training,
        further={"before_going_on": before.metrics} if job.go_on else None,
        channels=names if len(names) > 1 else (),
    )
    return {"model": str(job.output)}


def report_step(events: EventWriter, step: int, steps: int, phase: str) -> None:
    events.progress(
        step, steps, phase=phase, eta_s=(steps - step) * STEP_S, loss=1 / step, validation_dsc=0.5
    )


def apply(
    job: ApplyJob, folder: JobFolder, events: EventWriter, control: Control
) -> dict[str, Any]:
    labels = [label.value for label in read_card(job.model).labels]
    found = [apply_to(path, job, labels, events, control) for path in job.volumes]
    return {"model": str(job.model), "volumes": found}


def apply_to(
    path: Path, job: ApplyJob, labels: list[int], events: EventWriter, control: Control
) -> dict[str, Any]:
    from SAMFineTuneLib.volumes import Labelmap, read_volume, write_labelmap, write_volume

    volume = read_volume(path)
    found = np.zeros(volume.array.shape, np.uint8)
    slices, rows, columns = found.shape
    thickness = rows // 2 // len(labels)
    for place, label in enumerate(labels):
        block = slice(rows // 4 + thickness * place, rows // 4 + thickness * (place + 1))
        found[slices // 8 : -slices // 8, block, columns // 4 : -columns // 4] = label
    for number in range(slices):
        control.raise_if_cancelled()
        time.sleep(0.002)
        events.progress(number + 1, slices, phase="apply", eta_s=1.0)
    segmentation, uncertainty = job.output, job.uncertainty
    if len(job.volumes) > 1:
        # Of several volumes the outputs are folders.
        segmentation = job.output / f"{path.stem}.seg.nrrd"
        uncertainty = uncertainty and uncertainty / f"{path.stem}.nrrd"
    for file in (segmentation, uncertainty):
        if file is not None:
            file.parent.mkdir(exist_ok=True)
    write_labelmap(segmentation, Labelmap(found, volume.geometry), compress=job.compress)
    if uncertainty is not None:
        doubt = (found > 0).astype(np.float32) / 2
        write_volume(uncertainty, doubt, volume.geometry, compress=job.compress)
    return {
        "segmentation": str(segmentation),
        "uncertainty": str(uncertainty) if uncertainty else None,
        "axis": "axial",
        "slice_uncertainty": [0.5] * slices,
    }


if __name__ == "__main__":
    RUNNERS.update(finetune=finetune, apply=apply)
    sys.exit(worker.main(Path(sys.argv[1]), int(sys.argv[3])))
