"""Running a pre-training in a folder, with its state, its log, and the weights at the end."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.folder import JobFolder
from SAMFineTuneLib.pretraining.interruption import Interruption
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.saved import (
    bad_state,
    cannot_write,
    load_state,
    log,
    save_state,
)

_LOG_EVERY_STEPS = 50
_SAVE_EVERY_S = 120.0

Stages = list[dict[str, Any]]
Say = Callable[[str], None]


class Report(Protocol):
    """The progress of a pre-training: a dataclass of numbers, which becomes a line of the log."""

    @property
    def step(self) -> int:
        """Number of steps done."""

    @property
    def images(self) -> int:
        """Number of images seen so far by all processes."""

    def line(self) -> str:
        """The progress in words."""


class Training(Protocol):
    """What is run: it makes steps, and its state can be saved and restored."""

    @property
    def step(self) -> int:
        """Number of steps done."""

    @property
    def must_stay(self) -> tuple[str, ...]:
        """Settings that must be the same when a run is resumed."""

    def settings(self) -> dict[str, Any]:
        """All settings, for the card."""

    def run(self, after_step: Callable[[Any], bool]) -> None:
        """Steps until its end, or until `after_step` returns True."""

    def report(self) -> Any:
        """The progress so far, a `Report`."""

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""

    def restore(self, state: dict[str, Any]) -> None:
        """Resumes from a state."""

    def save(self, path: Path, stages: Stages) -> None:
        """Writes the weights, with a card that names the stages of the training."""


@dataclass(frozen=True)
class Run:
    """Where and how long a pre-training runs.

    Attributes:
        folder: for the state and the log; a state in it is resumed.
        output: file of the weights.
        processes: all processes of the training.
        interruption: entered; asks for a stop.
        say: called with a line about the progress from time to time.
        minutes: time limit, after which the weights are written as they are; None for none.
        snapshot_images: number of images after which the weights are saved in the folder each time.
        log_every_s: seconds after which a line is logged in any case, for slow steps.
        after_step: called in the first process after each step.
    """

    folder: Path
    output: Path
    processes: ProcessGroup
    interruption: Interruption
    say: Say
    minutes: float | None = None
    snapshot_images: int | None = None
    log_every_s: float = math.inf
    after_step: Callable[[], None] | None = None


def run_in_folder(
    training: Training, run: Run, start: Callable[[], Stages] | None = None, unused: str = ""
) -> dict[str, Any] | None:
    """Runs a training to its end or to the end of the time, and writes the weights.

    Args:
        training: what is run.
        run: where and how long.
        start: called where the folder holds no state; returns the stages before this training.
        unused: added to what is said where the folder holds a state.

    Returns:
        The progress; None in all processes but the first, so that it is reported once.

    Raises:
        InputError: a state that is damaged or of another plan; a file cannot be written.
        KeyboardInterrupt: it was interrupted, and the state is saved.
    """
    processes = run.processes
    say = run.say if processes.is_first else _say_nothing
    history = _history(training, run.folder)
    if training.step:
        say(f"going on at step {training.step}{unused}")
    elif start is not None:
        history = start()
    history.append(_stage(training, processes.size))
    training.run(_Keeper(training, history, run, say).after_step)
    interrupted = processes.any(run.interruption.asked)
    if processes.is_first:
        save_state(run.folder, {**training.state(), "stages": history})
        if not interrupted:
            training.save(run.output, history)
    processes.close()
    if interrupted:
        say(f"interrupted; the same command goes on at step {training.step}")
        raise KeyboardInterrupt
    progress = asdict(training.report()) if training.step else {}
    return {"weights": str(run.output), **progress} if processes.is_first else None


def _say_nothing(text: str) -> None:
    """Takes the place of `say` in processes other than the first."""


@contextmanager
def alone_in(folder: Path, processes: ProcessGroup) -> Iterator[None]:
    """Locks a folder against other pre-trainings; the first process does it for all.

    Raises:
        InputError: the folder cannot be made, or another pre-training runs in it.
    """
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


def _history(training: Training, folder: Path) -> Stages:
    """Restores the training from the folder's state, and returns the stages of earlier runs."""
    state = load_state(folder)
    if state is None:
        return []
    _require_same_plan(state, training, folder)
    try:
        training.restore(state)
    # Exceptions of torch for unexpected names, shapes and types.
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise bad_state(folder) from error
    stages: Stages = state.get("stages", [])
    return stages


def _stage(training: Training, processes: int) -> dict[str, Any]:
    """The stage that begins now, for the card, from which it can be repeated."""
    return {
        "from_step": training.step,
        "command": shlex.join(["python", "-m", "SAMFineTuneLib", *sys.argv[1:]]),
        "processes": processes,
        "plan": training.settings(),
    }


def _require_same_plan(state: dict[str, Any], training: Training, folder: Path) -> None:
    """Refuses to resume where a setting that must stay is another one."""
    stages: Stages = state.get("stages", [])
    before = stages[-1]["plan"] if stages else {}
    here = training.settings()
    changed = [
        f"{name} {before.get(name)} there, {here[name]} here"
        for name in training.must_stay
        if stages and before.get(name) != here[name]
    ]
    if changed:
        raise InputError(
            f"{folder} holds a pre-training of another plan ({'; '.join(changed)})",
            "go on with the same settings, or choose another folder",
            code="other_plan",
        )


class _Keeper:
    """Logs and saves the state while a pre-training runs."""

    def __init__(self, training: Training, history: Stages, run: Run, say: Say) -> None:
        now = time.monotonic()
        self._training = training
        self._history = history
        self._run = run
        self._say = say
        self._end = None if run.minutes is None else now + 60 * run.minutes
        self._save_at = now + _SAVE_EVERY_S
        self._log_at = now + run.log_every_s
        every = run.snapshot_images
        self._snapshots = training.report().images // every if every and training.step else 0

    def after_step(self, report: Any) -> bool:
        """Logs and saves where it is time to; returns whether to stop now."""
        if self._run.processes.is_first:
            self._keep(report)
        late = self._end is not None and time.monotonic() > self._end
        return self._run.processes.any(late or self._run.interruption.asked)

    def _keep(self, report: Any) -> None:
        run = self._run
        if report.step % _LOG_EVERY_STEPS == 0 or time.monotonic() > self._log_at:
            self._log_at = time.monotonic() + run.log_every_s
            log(run.folder, asdict(report))
            self._say(report.line())
        if run.after_step is not None:
            run.after_step()
        if time.monotonic() > self._save_at:
            save_state(run.folder, {**self._training.state(), "stages": self._history})
            self._save_at = time.monotonic() + _SAVE_EVERY_S
        if run.snapshot_images and report.images // run.snapshot_images > self._snapshots:
            self._snapshots = report.images // run.snapshot_images
            self._training.save(run.folder / f"images_{report.images}.safetensors", self._history)
