"""The training loop: steps, time, checkpoints, cancelling and finishing early, whatever is learnt.

A task says what a step learns, and what happens before and after it. All that a task shares with
others is here: so training on several processes has one place to come to.
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
from SAMFineTuneLib.training.trained_weights import TrainedWeights
from SAMFineTuneLib.training.training_state import TrainingState, forget_state, load_state

SAVE_EVERY_S = 30.0
# The first comes sooner: what fails on a machine fails early, and a short fine-tune has one too.
FIRST_SAVE_S = 6.0
# How much the latest loss counts in the mean that is reported.
_LATEST = 0.05

Ending = Literal["complete", "time limit", "early stop", "finished on request"]


@dataclass(frozen=True)
class ProgressReport:
    """Where a fine-tune stands; `validation_dsc` is the latest, None before the first."""

    step: int
    steps: int
    phase: str
    eta_s: float | None
    loss: float
    validation_dsc: float | None


@dataclass(frozen=True)
class Watch:
    """How the outside follows and steers a fine-tune.

    Attributes:
        report: called after every step.
        validated: called after a validation whose weights are kept for now, with the network.
        check: may raise to stop without a result.
        finish: whether to stop now and keep the best.
    """

    report: Callable[[ProgressReport], None] = lambda report: None
    validated: Callable[[AutomaticSegmenter, int], None] = lambda segmenter, step: None
    check: Callable[[], None] = lambda: None
    finish: Callable[[], bool] = lambda: False


class Task(Protocol):
    """What is learnt."""

    def before_step(self) -> Ending | None:
        """Changes what is learnt from, where it is time to; an ending where it is to end."""

    def loss_of_step(self, step: int) -> Tensor | None:
        """The loss of one step, with gradients; None where its slices show nothing to learn."""

    def phase(self) -> str:
        """What the user is told that it is doing."""

    def latest_validation(self) -> float | None:
        """DSC of the latest validation; None before the first."""

    def after_step(self) -> None:
        """Measures, where it is time to."""

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
        state: what a checkpoint keeps.
        schedule: how far it has come.
        put_aside: weights that were learnt, while the network holds others to be measured.
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
        # One step at least, however short the time: no step makes no model.
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
        """Lets the outside stop it; a checkpoint is saved then."""
        try:
            self._watch.check()
        except Exception:
            self.save()
            task.release()
            raise

    def save(self) -> None:
        """Writes a checkpoint, from which another run goes on."""
        state = self.state
        state.step = self.schedule.step
        state.elapsed_s = self.schedule.elapsed_s
        state.weights = self.put_aside or self.trained.copied()
        state.optimiser = self.trained.optimiser_state()
        state.save(self._folder, self._file)

    def forget(self) -> None:
        """Deletes the checkpoint, once the tuned model is safe."""
        forget_state(self._folder, self._file)

    def _step(self, task: Task) -> None:
        step = self.schedule.step
        loss = task.loss_of_step(step)
        if loss is not None:
            self.trained.descend(loss, self.schedule.learning_rate(), step + 1)
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
    """Where a network's parameters lie."""
    return next(network.parameters()).device
