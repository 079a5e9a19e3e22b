"""A pre-training in a folder: it goes on where it stopped, logs, and leaves the weights."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from SAMFineTuneLib.device import choose_device
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.pretraining.interruption import Interruption
from SAMFineTuneLib.pretraining.plan import PretrainingPlan
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.saved import (
    bad_state,
    cannot_write,
    load_state,
    log,
    read_weights,
    save_state,
    save_weights,
)
from SAMFineTuneLib.pretraining.training import Pretraining, PretrainingReport

_LOG_EVERY_STEPS = 50
_SAVE_EVERY_S = 120.0
# What must stay when a run goes on: the images would be drawn a second time from another seed's
# beginning. All else may change from stage to stage, such as larger images at the end.
_MUST_STAY = ("seed",)


def run_pretraining(
    plan: PretrainingPlan,
    folder: Path,
    output: Path,
    device_name: str,
    minutes: float | None = None,
    snapshot_images: int | None = None,
    start: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Runs to the end of the plan or of the time, and writes the weights.

    Args:
        plan: how long and on what.
        folder: for the state and the log; a state in it is gone on from.
        output: the weights, in half precision.
        device_name: as `choose_device` takes it.
        minutes: stop after so long, with the weights as they are then.
        snapshot_images: keep the weights in the folder each time that so many images were seen.
        start: weights of an earlier pre-training to begin with, where the folder holds no state.
        say: told a line now and then.

    Returns:
        Where it stands; None in every process but the first, so that it is told once.

    Raises:
        InputError: no such device; a state that is damaged or of another plan; weights to start
            from that do not fit; something cannot be written; another one is at work in the
            folder.
        KeyboardInterrupt: it was interrupted, and the state saved.
    """
    device = choose_device(device_name)
    processes = ProcessGroup(device)
    with _alone_in(folder, processes), Interruption() as interruption:
        training = Pretraining(plan, device, processes)
        history = _history(training, folder)
        told = say if processes.is_first else _say_nothing
        if training.step:
            unused = "" if start is None else f"; {start.name} is where a new folder would begin"
            told(f"going on at step {training.step}{unused}")
        elif start is not None:
            history = _start_from(training, start, told)
        history.append(_stage(training, processes.size))
        keeper = _Keeper(
            training, history, folder, processes, interruption, minutes, snapshot_images, told
        )
        training.run(keeper.after_step)
        interrupted = processes.any(interruption.asked)
        if processes.is_first:
            save_state(folder, {**training.state(), "stages": history})
            if not interrupted:
                save_weights(output, training.averaged, training_card(training, history))
    processes.close()
    if interrupted:
        told(f"interrupted; the same command goes on at step {training.step}")
        raise KeyboardInterrupt
    report = asdict(training.report()) if training.step else {}
    return {"weights": str(output), **report} if processes.is_first else None


def _say_nothing(text: str) -> None:
    """In processes whose words would be told by the first one too."""


@contextmanager
def _alone_in(folder: Path, processes: ProcessGroup) -> Iterator[None]:
    """Keeps other pre-trainings out of a folder; the first process does it for all."""
    if not processes.is_first:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    own = JobFolder(folder)
    own.lock()
    try:
        yield
    finally:
        own.unlock()


def _history(training: Pretraining, folder: Path) -> list[dict[str, Any]]:
    """The stages of earlier runs in the folder; the training is then where they ended."""
    state = load_state(folder)
    if state is None:
        return []
    _require_same_plan(state, training.plan, folder)
    try:
        training.restore(state)
    # What torch raises for names, shapes and kinds of things that it does not expect.
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise bad_state(folder) from error
    stages: list[dict[str, Any]] = state.get("stages", [])
    return stages


def _start_from(
    training: Pretraining, start: Path, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The stages that led to weights of an earlier training; the training then has these."""
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
    say(f"starting from {start.name}, {training.images} images; {len(new)} tensors are new")
    stages: list[dict[str, Any]] = card.get("stages", [])
    return stages


def _stage(training: Pretraining, processes: int) -> dict[str, Any]:
    """What begins now, so that the card tells how to do it again."""
    return {
        "from_step": training.step,
        "command": shlex.join(["python", "-m", "SAMFineTuneLib", *sys.argv[1:]]),
        "processes": processes,
        "plan": asdict(training.plan),
    }


def _require_same_plan(state: dict[str, Any], plan: PretrainingPlan, folder: Path) -> None:
    """Refuses to go on with another seed."""
    stages: list[dict[str, Any]] = state.get("stages", [])
    before = stages[-1]["plan"] if stages else {}
    changed = [
        f"{name} {before[name]} there, {value} here"
        for name, value in asdict(plan).items()
        if name in _MUST_STAY and name in before and before[name] != value
    ]
    if changed:
        raise InputError(
            f"{folder} holds a pre-training of another plan ({'; '.join(changed)})",
            "go on with the same settings, or choose another folder",
            code="other_plan",
        )


def training_card(training: Pretraining, history: list[dict[str, Any]]) -> dict[str, Any]:
    """How the weights came about, for their card."""
    return {
        "stages": history,
        "seed": training.plan.seed,
        "steps": training.step,
        "images": training.images,
        "hours": round(training.seconds / 3600, 2),
    }


class _Keeper:
    """Logs and saves while a pre-training runs."""

    def __init__(
        self,
        training: Pretraining,
        history: list[dict[str, Any]],
        folder: Path,
        processes: ProcessGroup,
        interruption: Interruption,
        minutes: float | None,
        snapshot_images: int | None,
        say: Callable[[str], None],
    ) -> None:
        self._training = training
        self._history = history
        self._folder = folder
        self._processes = processes
        self._interruption = interruption
        self._say = say
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._save_at = time.monotonic() + _SAVE_EVERY_S
        self._snapshot_images = snapshot_images
        self._snapshots = training.images // snapshot_images if snapshot_images else 0

    def after_step(self, report: PretrainingReport) -> bool:
        """Whether to stop now."""
        if self._processes.is_first:
            self._keep(report)
        late = self._end is not None and time.monotonic() > self._end
        return self._processes.any(late or self._interruption.asked)

    def _keep(self, report: PretrainingReport) -> None:
        if report.step % _LOG_EVERY_STEPS == 0:
            log(self._folder, asdict(report))
            self._say(
                f"step {report.step}, {report.images} images, {report.seconds:.0f} s: "
                f"loss {report.loss:.3f}, DSC in context {report.context_dsc:.3f}, "
                f"prompted {report.prompt_dsc:.3f}, corrected {report.corrected_dsc:.3f}"
            )
        if time.monotonic() > self._save_at:
            save_state(self._folder, {**self._training.state(), "stages": self._history})
            self._save_at = time.monotonic() + _SAVE_EVERY_S
        if self._snapshot_images and report.images // self._snapshot_images > self._snapshots:
            self._snapshots = report.images // self._snapshot_images
            save_weights(
                self._folder / f"images_{report.images}.safetensors",
                self._training.averaged,
                training_card(self._training, self._history),
            )
