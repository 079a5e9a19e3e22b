"""The pre-training by masked reconstruction (He et al. 2022)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.pretraining.finite_loss import require_finite
from SAMFineTuneLib.pretraining.masked.autoencoder import MaskedAutoencoder
from SAMFineTuneLib.pretraining.masked.batches import BatchesAhead
from SAMFineTuneLib.pretraining.masked.patches import (
    draw_masks,
    patches_of,
    reconstruction_loss,
)
from SAMFineTuneLib.pretraining.masked.plan import (
    BETAS,
    MASKED,
    WARM_UP,
    WEIGHT_DECAY,
    MaskedPlan,
)
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.schedule import warm_up_cosine
from SAMFineTuneLib.pretraining.weights_file import write_weights
from SAMFineTuneLib.training.weight_decay import decayed_groups

# Decay of the running mean that is reported.
_RECENT = 0.95


@dataclass(frozen=True)
class MaskedReport:
    """The progress.

    Attributes:
        step: steps of the optimiser done.
        images: slices seen so far by all processes.
        epoch: how often each slice was seen.
        seconds: time spent.
        learning_rate: of the last step.
        loss: running mean of the error of normalised masked pixels; 1 is that of guessing the mean.
    """

    step: int
    images: int
    epoch: float
    seconds: float
    learning_rate: float
    loss: float

    def line(self) -> str:
        """The progress in words."""
        return (
            f"step {self.step}, epoch {self.epoch:.1f}, {self.images} slices, "
            f"{self.seconds:.0f} s: loss {self.loss:.4f}, learning rate {self.learning_rate:.2g}"
        )


class MaskedPretraining:
    """Trains an autoencoder, in place.

    Args:
        plan: the settings.
        autoencoder: on its device.
        batches: of the slices.
        processes: all processes of this training.
        start: what the card tells of the weights that it began with.
    """

    def __init__(
        self,
        plan: MaskedPlan,
        autoencoder: MaskedAutoencoder,
        batches: BatchesAhead,
        processes: ProcessGroup,
        start: dict[str, Any],
    ) -> None:
        self.plan = plan
        self.step = 0
        self.autoencoder = autoencoder
        self._seconds = 0.0
        self._recent: float | None = None
        self._rate = 0.0
        self._batches = batches
        self._processes = processes
        self._start = start
        self._device = next(autoencoder.parameters()).device
        self._optimiser = torch.optim.AdamW(
            decayed_groups(autoencoder.parameters(), WEIGHT_DECAY),
            lr=plan.learning_rate,
            betas=BETAS,
        )

    @property
    def must_stay(self) -> tuple[str, ...]:
        """Settings without which the state makes no sense, or random numbers begin anew."""
        return ("kind", "backbone", "input_size", "pixels", "patch", "seed")

    @property
    def progress(self) -> float:
        """Share of the training that is done, by steps or by time."""
        done = self.step / self.plan.steps
        if self.plan.minutes is not None:
            done = max(done, self._seconds / (60 * self.plan.minutes))
        return min(1.0, done)

    def settings(self) -> dict[str, Any]:
        """All settings, for the card."""
        return asdict(self.plan)

    def run(self, after_step: Callable[[MaskedReport], bool]) -> None:
        """Steps until the end, or until `after_step` returns True.

        Raises:
            InputError: the loss is not a number any more.
        """
        self.autoencoder.train()
        stop = False
        while not stop:
            start = time.monotonic()
            # Clocks differ between processes, but their learning rates must not.
            progress = self._processes.largest(self.progress)
            if progress >= 1:
                break
            self._take_step(progress)
            self._seconds += time.monotonic() - start
            stop = after_step(self.report())

    def report(self) -> MaskedReport:
        """The progress so far."""
        images = self.step * self.plan.step_slices
        return MaskedReport(
            self.step,
            images,
            round(images / self.plan.slices, 3),
            self._seconds,
            self._rate,
            math.nan if self._recent is None else self._recent,
        )

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {
            "step": self.step,
            "seconds": self._seconds,
            "recent": self._recent,
            "autoencoder": self.autoencoder.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resumes from a state."""
        self.autoencoder.load_state_dict(state["autoencoder"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self._seconds = state["step"], state["seconds"]
        self._recent = state["recent"]

    def save(self, path: Path, stages: list[dict[str, Any]]) -> None:
        """Writes the network's weights, without what was added for the training."""
        card = {
            "kind": self.plan.kind,
            "begun_with": self._start,
            "stages": stages,
            "steps": self.step,
            "slices": self.plan.slices,
            "hours": round(self._seconds / 3600, 2),
        }
        write_weights(path, self.autoencoder.network, card)

    def _take_step(self, progress: float) -> None:
        plan = self.plan
        self._rate = warm_up_cosine(progress, plan.learning_rate, WARM_UP)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for part in range(plan.accumulate):
            loss = self._loss(part)
            (loss / plan.accumulate).backward()
            total += float(loss.detach()) / plan.accumulate
        require_finite(total, self.step)
        trained = [each for each in self.autoencoder.parameters() if each.requires_grad]
        self._processes.average_gradients(trained)
        self._optimiser.step()
        self.step += 1
        before = total if self._recent is None else self._recent
        self._recent = _RECENT * before + (1 - _RECENT) * total

    def _loss(self, part: int) -> Tensor:
        """The loss of one of the batches that a step accumulates."""
        plan, rank = self.plan, self._processes.rank
        first = self.step * plan.step_slices
        first += (part * self._processes.size + rank) * plan.batch
        images = self._batches.draw(first, plan.batch).to(self._device)
        random = np.random.default_rng([plan.seed, 7, first])
        noise = torch.from_numpy(random.random((plan.batch, self.autoencoder.patches)))
        masked = draw_masks(MASKED, noise).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
            predicted = self.autoencoder(images, masked)
        return reconstruction_loss(predicted, patches_of(images, self.autoencoder.patch), masked)
