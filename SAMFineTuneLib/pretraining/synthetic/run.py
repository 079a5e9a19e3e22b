"""Running the starter's pre-training on synthetic images in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from SAMFineTuneLib.device import choose_device
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.pretraining.interruption import Interruption
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.run import Run, Stages, alone_in, run_in_folder
from SAMFineTuneLib.pretraining.synthetic.plan import PretrainingPlan
from SAMFineTuneLib.pretraining.synthetic.starter_weights import read_weights
from SAMFineTuneLib.pretraining.synthetic.training import Pretraining


def run_pretraining(
    plan: PretrainingPlan,
    folder: Path,
    output: Path,
    device_name: str,
    minutes: float | None = None,
    snapshot_images: int | None = None,
    start: Path | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Runs to the end of the plan or of the time, and writes the weights.

    Args:
        plan: the settings.
        folder: for the state and the log; a state in it is resumed.
        output: file of the weights, in half precision.
        device_name: as `choose_device` takes it.
        minutes: time limit, after which the weights are written as they are; None for none.
        snapshot_images: number of images after which the weights are saved in the folder each time.
        start: weights of an earlier pre-training to start from, where the folder holds no state.
        report: called with a line about the progress from time to time.

    Returns:
        The progress; None in all processes but the first, so that it is reported once.

    Raises:
        InputError: no such device; a state that is damaged or of another plan; weights to start
            from that do not fit; a file cannot be written; another pre-training runs in the folder.
        KeyboardInterrupt: it was interrupted, and the state is saved.
    """
    device = choose_device(device_name)
    processes = ProcessGroup(device)
    with alone_in(folder, processes), Interruption() as interruption:
        training = Pretraining(plan, device, processes)
        run = Run(folder, output, processes, interruption, report, minutes, snapshot_images)
        if start is None:
            return run_in_folder(training, run)
        say = report if processes.is_first else _say_nothing
        return run_in_folder(
            training,
            run,
            lambda: _start_from(training, start, say),
            f"; {start.name} is where a new folder would begin",
        )


def _say_nothing(text: str) -> None:
    """Takes the place of `report` in processes other than the first."""


def _start_from(training: Pretraining, start: Path, report: Callable[[str], None]) -> Stages:
    """Loads the weights of an earlier training, and returns the stages that led to them."""
    tensors, card = read_weights(start)
    try:
        new = training.start_from(
            tensors, int(card.get("images", 0)), 3600 * float(card.get("hours", 0))
        )
    except RuntimeError as error:
        raise InputError(
            f"{start} does not fit the starter network",
            "name weights that a pre-training wrote",
            code="bad_weights",
        ) from error
    report(f"starting from {start.name}, {training.images} images; {len(new)} tensors are new")
    stages: Stages = card.get("stages", [])
    return stages
