"""The training loop of all tasks: steps, time, checkpoints, cancelling and finishing early.

A task defines the loss of a step, and what happens before and after a step. Everything that tasks
have in common is in the loop, so that training on several processes can be added in one place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.training.plan import FinetunePlan
from SAMFineTuneLib.training.schedule import Schedule
from SAMFineTuneLib.training.teacher import Teacher
from SAMFineTuneLib.training.trained_weights import TrainedWeights
from SAMFineTuneLib.training.training_state import TrainingState, forget_state, load_state

SAVE_EVERY_S = 30.0
# The first checkpoint is written sooner, because faults of a machine appear early, and so that a
# short fine-tune has one, too.
FIRST_SAVE_S = 6.0
# Weight of the latest loss in the running mean that is reported.
_LATEST = 0.05

Ending = Literal["complete", "time limit", "early stop", "finished on request"]


@dataclass(frozen=True)
class ProgressReport:
    """The progress of a fine-tune.

    `validation_dsc` is the latest one, None before the first; `learning_rate` is that of this step.
    """

    step: int
    steps: int
    phase: str
    eta_s: float | None
    loss: float
    validation_dsc: float | None
    learning_rate: float


@dataclass(frozen=True)
class Watch:
    """Functions by which the caller of a fine-tune follows and stops it.

    Attributes:
        report: called after every step.
        validated: called with the network and the step after a validation whose weights are the
            best ones so far.
        check: called between steps; may raise to stop without a result.
        finish: returns whether to stop now and keep the best weights.
        measured: called with the step and the mean DSC after every validation.
        foreseen: called once, as soon as it is seen that the time limit will cut the plan short,
            with the steps that there is time for, those that are planned, and the minutes that the
            others would take.
    """

    report: Callable[[ProgressReport], None] = lambda report: None
    validated: Callable[[AutomaticSegmenter, int], None] = lambda segmenter, step: None
    check: Callable[[], None] = lambda: None
    finish: Callable[[], bool] = lambda: False
    measured: Callable[[int, float | None], None] = lambda step, dsc: None
    foreseen: Callable[[int, int, float], None] = lambda fitting, planned, minutes: None


class Task(Protocol):
    """What a training loop trains for: the loss of each step, and what happens around it."""

    def before_step(self) -> Ending | None:
        """Prepares a step, and may change the slices to learn from; returns an ending to stop."""

    def loss_of_step(self, step: int) -> Tensor | None:
        """The loss of one step, with gradients; None where its slices show no structure."""

    def phase(self) -> str:
        """The name of the current phase, for progress reports."""

    def latest_validation(self) -> float | None:
        """DSC of the latest validation; None before the first."""

    def after_step(self) -> None:
        """Measures the network where a validation is due."""

    def release(self) -> None:
        """Deletes what was computed for this run only."""


class TrainingLoop:
    """Steps over the parameters of a network that require gradients.

    Args:
        network: adapted, on its device.
        trained: its tensors that train; a checkpoint's values are put into them.
        plan: steps, time, rate.
        folder: where the checkpoint goes.
        file: its name.
        signature: what this fine-tune is; a checkpoint of another one is ignored.
        watch: how the outside follows.

    Attributes:
        trained: the tensors that train.
        state: the content of a checkpoint.
        schedule: progress and learning rate.
        put_aside: the learnt weights, while the network holds others to be measured.
        teacher: follows the steps; None for a task without one.
    """

    def __init__(
        self,
        network: nn.Module,
        trained: TrainedWeights,
        plan: FinetunePlan,
        folder: Path,
        file: str,
        signature: str,
        watch: Watch,
    ) -> None:
        self.trained = trained
        self.state = self._resumed(folder, file, signature)
        self.schedule = Schedule(plan, self.state.step, self.state.elapsed_s)
        self.put_aside: dict[str, Tensor] | None = None
        self.teacher: Teacher | None = None
        self._network = network
        self._folder = folder
        self._file = file
        self._watch = watch

    @property
    def resumed_at(self) -> int:
        """The step that an earlier run had come to; 0 for a new fine-tune."""
        return self.state.step

    def run(self, task: Task) -> Ending:
        """Runs to the end.

        Raises:
            whatever `watch.check` raises, after saving a checkpoint.
        """
        self._network.train()
        save_at = time.monotonic() + min(FIRST_SAVE_S, SAVE_EVERY_S)
        # At least one step is made, however short the time limit, because without a step there is
        # no model.
        while self.schedule.step == 0 or self.schedule.progress < 1:
            self.check_cancelled(task)
            if self._watch.finish():
                return "finished on request"
            ending = task.before_step()
            if ending is not None:
                return ending
            self._step(task)
            task.after_step()
            if time.monotonic() > save_at:
                self.save()
                save_at = time.monotonic() + SAVE_EVERY_S
        return "time limit" if self.schedule.was_cut_short else "complete"

    def check_cancelled(self, task: Task) -> None:
        """Raises where the caller asks to stop; a checkpoint is saved before."""
        try:
            self._watch.check()
        except Exception:
            self.save()
            task.release()
            raise

    def save(self) -> None:
        """Writes a checkpoint, from which another run resumes."""
        state = self.state
        state.step = self.schedule.step
        state.elapsed_s = self.schedule.elapsed_s
        state.weights = self.put_aside or self.trained.copied()
        state.optimiser = self.trained.optimiser_state()
        if self.teacher is not None:
            state.teacher = self.teacher.copied()
        state.save(self._folder, self._file)

    def forget(self) -> None:
        """Deletes the checkpoint, once the tuned model is safe."""
        forget_state(self._folder, self._file)

    def _step(self, task: Task) -> None:
        step = self.schedule.step
        loss = task.loss_of_step(step)
        rate = self.schedule.learning_rate()
        if loss is not None:
            self.trained.descend(loss, rate, step + 1)
            if self.teacher is not None:
                self.teacher.follow(step + 1)
            self._note(loss.item())
        self.schedule.step = step + 1
        self._watch.report(
            ProgressReport(
                step=self.schedule.step,
                steps=self.schedule.expected_steps,
                phase=task.phase(),
                eta_s=self.schedule.remaining_s,
                loss=self.state.recent_loss,
                validation_dsc=task.latest_validation(),
                learning_rate=rate,
            )
        )

    def _note(self, loss: float) -> None:
        recent = self.state.recent_loss
        first = math.isnan(recent)
        self.state.recent_loss = loss if first else (1 - _LATEST) * recent + _LATEST * loss

    def _resumed(self, folder: Path, file: str, signature: str) -> TrainingState:
        state = load_state(folder, signature, file)
        if state is None or not self.trained.fits(state.weights):
            return TrainingState(signature)
        self.trained.load(state.weights)
        self.trained.load_optimiser(state.optimiser)
        return state


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's parameters."""
    return next(network.parameters()).device
