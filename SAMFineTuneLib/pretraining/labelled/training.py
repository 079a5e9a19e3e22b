"""The pre-training by prompts on labelled data sets, as the study's SupSAM (Gu et al.).

The prompt encoder is fixed; image encoder and mask decoder are trained as they are. Each image
shows one random object, with a box or a point for each of its regions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.spec import PixelNormalisation
from SAMFineTuneLib.pretraining.finite_loss import require_finite
from SAMFineTuneLib.pretraining.labelled.data_sets import DataSets
from SAMFineTuneLib.pretraining.labelled.objects import (
    ObjectOnSquare,
    augmented_object,
    plain_object,
)
from SAMFineTuneLib.pretraining.labelled.plan import WEIGHT_DECAY, LabelledPlan
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.weights_file import write_weights
from SAMFineTuneLib.prompts.region_prompts import region_prompts
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.training.mask_loss import mask_loss, thinned
from SAMFineTuneLib.training.weight_decay import decayed_groups

# Decay of the running means that are reported.
_RECENT = 0.95


@dataclass(frozen=True)
class LabelledReport:
    """The progress.

    Attributes:
        step: steps done.
        images: slices seen so far by all processes.
        epoch: how often each slice was seen.
        seconds: time spent.
        loss: running mean.
        dsc: running mean of the DSC on the slices that are learnt from.
        validation_dsc: mean over the data sets of the DSC on held-out slices; None before the first
            epoch has ended. It is reached with prompts that are drawn from the true masks.
        best_dsc: the best so far; its weights are written.
    """

    step: int
    images: int
    epoch: float
    seconds: float
    loss: float
    dsc: float
    validation_dsc: float | None
    best_dsc: float | None

    def line(self) -> str:
        """The progress in words."""
        measured = ""
        if self.validation_dsc is not None:
            measured = f", held out {self.validation_dsc:.3f} (best {self.best_dsc:.3f})"
        return (
            f"step {self.step}, epoch {self.epoch:.1f}, {self.seconds:.0f} s: loss "
            f"{self.loss:.3f}, DSC with prompts {self.dsc:.3f}{measured}"
        )


class LabelledPretraining:
    """Trains a network, in place.

    Args:
        plan: the settings.
        network: on its device.
        data: the slices.
        processes: all processes of this training.
        start: what the card tells of the weights that it began with.
    """

    def __init__(
        self,
        plan: LabelledPlan,
        network: SamNetwork,
        data: DataSets,
        processes: ProcessGroup,
        start: dict[str, Any],
    ) -> None:
        self.plan = plan
        self.step = 0
        self.network = network
        self._segmenter = PromptedSegmenter(network)
        self._data = data
        self._processes = processes
        self._start = start
        self._seconds = 0.0
        self._recent: dict[str, float] = {}
        self._measured: list[float] = []
        self._best: dict[str, Tensor] = {}
        self._device = next(network.parameters()).device
        network.requires_grad_(False)
        network.image_encoder.requires_grad_(True)
        network.mask_decoder.requires_grad_(True)
        self._optimiser = torch.optim.AdamW(
            decayed_groups(network.parameters(), WEIGHT_DECAY), lr=plan.learning_rate
        )

    @property
    def must_stay(self) -> tuple[str, ...]:
        """Settings without which the state makes no sense, or random numbers begin anew."""
        return ("kind", "backbone", "input_size", "pixels", "seed")

    def settings(self) -> dict[str, Any]:
        """All settings, for the card."""
        return asdict(self.plan)

    def run(self, after_step: Callable[[LabelledReport], bool]) -> None:
        """Steps until nothing improves or the plan's end, or until `after_step` returns True.

        Raises:
            InputError: the loss is not a number any more.
        """
        self.network.train()
        stop = False
        while not stop and not self._processes.any(self._is_done()):
            start = time.monotonic()
            self._take_step()
            if self.step % self.plan.epoch_steps == 0:
                self._validate()
            self._seconds += time.monotonic() - start
            stop = after_step(self.report())
        # Where time ends the first epoch, nothing was measured.
        if not self._measured and not stop:
            self._validate()

    def report(self) -> LabelledReport:
        """The progress so far."""
        images = self.step * self.plan.batch * self._processes.size
        return LabelledReport(
            self.step,
            images,
            round(self.step / self.plan.epoch_steps, 3),
            self._seconds,
            self._recent.get("loss", 0.0),
            self._recent.get("dsc", 0.0),
            self._measured[-1] if self._measured else None,
            max(self._measured) if self._measured else None,
        )

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {
            "step": self.step,
            "seconds": self._seconds,
            "recent": self._recent,
            "measured": self._measured,
            "best": self._best,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resumes from a state."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._measured, self._best = state["measured"], state["best"]
        self._recent = state["recent"]
        self.step, self._seconds = state["step"], state["seconds"]

    def save(self, path: Path, stages: list[dict[str, Any]]) -> None:
        """Writes the weights that did best on the held-out slices."""
        if self._best:
            self.network.load_state_dict(self._best)
        card = {
            "kind": self.plan.kind,
            "begun_with": self._start,
            "stages": stages,
            "steps": self.step,
            "slices": self.plan.slices,
            "validation_dsc_with_prompts": max(self._measured, default=None),
            "hours": round(self._seconds / 3600, 2),
        }
        write_weights(path, self.network, card)

    def _is_done(self) -> bool:
        plan = self.plan
        if self.step >= plan.epochs * plan.epoch_steps:
            return True
        if plan.minutes is not None and self._seconds >= 60 * plan.minutes:
            return True
        best = int(np.argmax(self._measured)) if self._measured else 0
        return len(self._measured) - 1 - best >= plan.patience

    def _take_step(self) -> None:
        plan = self.plan
        for group in self._optimiser.param_groups:
            group["lr"] = plan.rate_at(self.step)
        random = RandomSource((plan.seed, 8, self.step, self._processes.rank), self._device)
        objects = [
            augmented_object(self._data.learnt[position], plan.input_size, self._pixels, random)
            for position in self._positions()
        ]
        shown = [each for each in objects if each.mask.any()]
        self._optimiser.zero_grad(set_to_none=True)
        trained = [each for each in self.network.parameters() if each.requires_grad]
        if shown:
            loss, dsc = self._loss(shown, random)
            loss.backward()
            self._note({"loss": float(loss.detach()), "dsc": float(dsc.mean())})
        if self._processes.size > 1:
            # Every process takes part in the mean, also one whose objects were moved away.
            for each in trained:
                each.grad = torch.zeros_like(each) if each.grad is None else each.grad
        self._processes.average_gradients(trained)
        self._optimiser.step()
        self.step += 1

    def _loss(self, objects: list[ObjectOnSquare], random: RandomSource) -> tuple[Tensor, Tensor]:
        images = torch.stack([each.image for each in objects]).to(self._device)
        masks = torch.stack([each.mask for each in objects]).to(self._device)
        prompts, meant = region_prompts(masks, random)
        bf16 = self.plan.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            logits, predictions = self._segmenter.decode(self._segmenter.encode(images), prompts)
        loss, dsc = mask_loss(logits, predictions, thinned(meant, random))
        require_finite(float(loss.detach()), self.step)
        return loss, dsc

    def _positions(self) -> list[int]:
        """The slices of this process's next step; an epoch's last step begins anew at its start."""
        epoch, number = divmod(self.step, self.plan.epoch_steps)
        slices = len(self._data.learnt)
        order = np.random.default_rng([self.plan.seed, 9, epoch]).permutation(slices)
        batch = self.plan.batch
        first = (number * self._processes.size + self._processes.rank) * batch
        return [int(order[each % slices]) for each in range(first, first + batch)]

    @property
    def _pixels(self) -> PixelNormalisation:
        return cast(PixelNormalisation, self.plan.pixels)

    @torch.no_grad()
    def _validate(self) -> None:
        """Measures the held-out slices, always with the same prompts, and keeps the best weights.

        Every process measures; they agree on the score, as rounding may differ between them.
        """
        self.network.eval()
        scores = []
        for _, slices in self._data.measured:
            found = [self._dsc_on(each, number) for number, each in enumerate(slices)]
            known = [each for each in found if each is not None]
            if known:
                scores.append(float(np.mean(known)))
        score = self._processes.largest(float(np.mean(scores)) if scores else 0.0)
        self.network.train()
        if not self._measured or score > max(self._measured):
            state = self.network.state_dict()
            self._best = {name: each.detach().cpu().clone() for name, each in state.items()}
        self._measured.append(score)

    def _dsc_on(self, labelled: Any, number: int) -> float | None:
        """The DSC of one object; None where it is smaller than a pixel of the square."""
        random = RandomSource((self.plan.seed, 10, number), self._device)
        shown = plain_object(labelled, self.plan.input_size, self._pixels, random)
        if not shown.mask.any():
            return None
        prompts, meant = region_prompts(shown.mask[None].to(self._device), random)
        features = self._segmenter.encode(shown.image[None].to(self._device))
        logits, predictions = self._segmenter.decode(features, prompts)
        return float(mask_loss(logits, predictions, meant)[1])

    def _note(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            before = self._recent.get(name, value)
            self._recent[name] = _RECENT * before + (1 - _RECENT) * value
