"""What a fine-tune reports while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from SAMFineTuneLib.adaptation.parameter_count import count
from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.examples.unlabelled_volumes import UnlabelledData
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.heads.names import DEFAULT_HEAD
from SAMFineTuneLib.jobs.control import Control
from SAMFineTuneLib.models.measured_text import measured_in_words
from SAMFineTuneLib.tasks.going_on import GoingOn
from SAMFineTuneLib.tasks.tensorboard_log import TensorBoardLog
from SAMFineTuneLib.training.fine_tuning import FinetuneOutcome
from SAMFineTuneLib.training.loop import ProgressReport, Watch
from SAMFineTuneLib.training.more_time import MoreTime, about_minutes, in_words
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.preview import PreviewWriter
from SAMFineTuneLib.training.validation_split import ValidationSplit
from SAMFineTuneLib.worker.events import EventWriter

_PROGRESS_EVERY_S = 0.5


def watch_of(
    events: EventWriter,
    control: Control,
    preview: PreviewWriter,
    tensorboard: TensorBoardLog | None = None,
) -> Watch:
    """Connects a fine-tune with the events and the control files of its job."""
    last = 0.0

    def report(progress: ProgressReport) -> None:
        nonlocal last
        if tensorboard is not None:
            tensorboard.report(progress)
        done = progress.step >= progress.steps
        if done or time.monotonic() - last >= _PROGRESS_EVERY_S:
            last = time.monotonic()
            fields = asdict(progress)
            del fields["learning_rate"]
            events.progress(**fields)

    def foreseen(fitting: int, planned: int, minutes: float) -> None:
        events.log(
            f"at this pace there is time for about {fitting} of the {planned} planned steps; the "
            f"others would take about {about_minutes(minutes)}"
        )

    return Watch(
        report=report,
        validated=preview.write,
        check=control.raise_if_cancelled,
        finish=control.finish_requested,
        measured=tensorboard.measured if tensorboard is not None else Watch.measured,
        foreseen=foreseen,
    )


def log_plan(
    plan: FinetunePlan,
    examples: TrainingSet,
    held_out: ValidationSplit,
    segmenter: AutomaticSegmenter,
    device: torch.device,
    events: EventWriter,
) -> None:
    """Logs the number of slices to learn from, and which part of the network trains."""
    total = count(segmenter.network)[-1]
    depth = "" if plan.head_depth is None else f" of depth {plan.head_depth}"
    head = "" if plan.head == DEFAULT_HEAD else f"head {plan.head}{depth}, "
    labelled = sum(each.is_labelled for each in examples.slices)
    events.log(
        f"{labelled} labelled and {len(examples.slices) - labelled} empty {examples.axis} slices "
        f"of {counted(examples.volumes, 'volume')}, {counted(len(examples.labels), 'label')}; "
        f"{counted(len(held_out.validation), 'slice')} held out (by {held_out.by})"
    )
    events.log(
        f"{plan.backbone}, {head}{plan.method}, {plan.scope}, "
        f"input {plan.input_size}, "
        f"{total.trainable / 1e6:.2f} of {total.total / 1e6:.2f} million parameters train, "
        f"on {device}"
    )


def log_unlabelled(unlabelled: UnlabelledData, events: EventWriter) -> None:
    """Logs what is learnt from without labels, if anything is."""
    if unlabelled.slices:
        events.log(
            f"{counted(len(unlabelled.slices), 'slice')} without labels, of "
            f"{counted(len(unlabelled.names), 'volume')}"
        )


def log_measured(metrics: Mapping[str, Any], events: EventWriter) -> None:
    """Logs what was measured on the held-out slices, of the card that will be written."""
    words = measured_in_words(metrics)
    if not words:
        return
    slices = counted(metrics["held_out_slices"], "held-out slice")
    events.log(f"measured on {slices}: {words}")


def log_going_on(plan: FinetunePlan, going_on: GoingOn, events: EventWriter) -> None:
    """Logs from where a model goes on, and for how long."""
    made = counted(going_on.earlier.steps, "step")
    steps = (
        "as many steps as there is time for" if plan.steps is None else counted(plan.steps, "step")
    )
    rate = f"a learning rate of up to {plan.learning_rate:.2g}"
    events.log(f"going on from {going_on.initial.path.name} after {made}: {steps}, at {rate}")


def log_more_time(more: MoreTime | None, outcome: FinetuneOutcome, events: EventWriter) -> None:
    """Logs what more time would be good for, if for anything."""
    if more is not None:
        events.log(in_words(more, outcome))
