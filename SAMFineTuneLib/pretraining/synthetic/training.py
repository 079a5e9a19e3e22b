"""The pre-training: the starter network learns from synthetic episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.network import SamNetwork
from SAMFineTuneLib.networks.staged_encoder import chosen
from SAMFineTuneLib.networks.starter.network import build_starter, set_input_size
from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.synthetic.context_task import context_loss
from SAMFineTuneLib.pretraining.synthetic.episode import Episode, draw_episode
from SAMFineTuneLib.pretraining.synthetic.plan import PretrainingPlan
from SAMFineTuneLib.pretraining.synthetic.prompt_task import Rounds, choose_masks, prompt_loss
from SAMFineTuneLib.pretraining.synthetic.starter_weights import save_weights
from SAMFineTuneLib.random_source import RandomSource
from SAMFineTuneLib.training.loss import PartialLabelLoss

# Decay of the running average of the weights.
_AVERAGED_OVER = 0.998
_LARGEST_GRADIENT = 1.0
# Decay of the running means that are reported.
_RECENT = 0.99


@dataclass(frozen=True)
class PretrainingReport:
    """The progress of a pre-training; loss and DSC are running means on synthetic images.

    Attributes:
        step: number of steps done.
        images: number of synthetic images seen so far by all processes.
        seconds: time spent.
        loss: of both tasks.
        context_dsc: DSC of the automatic task.
        prompt_dsc: DSC of the prompted task after one box or point.
        corrected_dsc: DSC of the prompted task after the last correcting click.
    """

    step: int
    images: int
    seconds: float
    loss: float
    context_dsc: float
    prompt_dsc: float
    corrected_dsc: float

    def line(self) -> str:
        """The progress in words."""
        return (
            f"step {self.step}, {self.images} images, {self.seconds:.0f} s: "
            f"loss {self.loss:.3f}, DSC in context {self.context_dsc:.3f}, "
            f"prompted {self.prompt_dsc:.3f}, corrected {self.corrected_dsc:.3f}"
        )


class Pretraining:
    """Trains a starter network from random weights, or resumes from a saved state.

    Args:
        plan: the settings.
        device: to train on.
        processes: all processes of this training.
    """

    def __init__(
        self, plan: PretrainingPlan, device: torch.device, processes: ProcessGroup
    ) -> None:
        self.plan = plan
        self.step = 0
        self.images = 0
        self.seconds = 0.0
        self._device = device
        self._processes = processes
        # Every process starts from the same weights.
        torch.manual_seed(plan.seed)
        self.network = build_starter(256).to(device)
        self._segmenter = PromptedSegmenter(self.network)
        self._average = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGED_OVER)
        )
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        self._loss = PartialLabelLoss()
        self._recent: dict[str, float] = {}

    @property
    def must_stay(self) -> tuple[str, ...]:
        """With another seed the random numbers would begin anew.

        All other settings may change from stage to stage, such as larger images at the end.
        """
        return ("seed",)

    def settings(self) -> dict[str, Any]:
        """All settings, for the card."""
        return asdict(self.plan)

    @property
    def averaged(self) -> SamNetwork:
        """The network with the running average of its weights, better than the last ones."""
        network = self._average.module
        assert isinstance(network, SamNetwork)
        return network

    def run(self, after_step: Callable[[PretrainingReport], bool]) -> None:
        """Steps until the plan's end, or until `after_step` returns True."""
        self.network.train()
        stop = False
        while self.step < self.plan.steps and not stop:
            start = time.monotonic()
            self._take_step()
            self.seconds += time.monotonic() - start
            stop = after_step(self.report())

    def report(self) -> PretrainingReport:
        """The progress so far."""
        return PretrainingReport(self.step, self.images, self.seconds, **self._recent)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {
            "step": self.step,
            "images": self.images,
            "seconds": self.seconds,
            "recent": self._recent,
            "network": self.network.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def save(self, path: Path, stages: list[dict[str, Any]]) -> None:
        """Writes the averaged weights, with a card that names the stages of the training."""
        card = {
            "stages": stages,
            "seed": self.plan.seed,
            "steps": self.step,
            "images": self.images,
            "hours": round(self.seconds / 3600, 2),
        }
        save_weights(path, self.averaged, card)

    def start_from(self, tensors: Mapping[str, Tensor], images: int, seconds: float) -> list[str]:
        """Starts from the weights of an earlier training, with a new optimiser.

        Args:
            tensors: by their names in the network.
            images: number of images that were seen in that training.
            seconds: time that it took.

        Returns:
            Names of tensors of the network that are not among these; they are not changed.

        Raises:
            RuntimeError: a tensor that the network lacks, or of another shape; tensors of the image
                encoder are missing.
        """
        found = self.network.load_state_dict(tensors, strict=False)
        if found.unexpected_keys:
            raise RuntimeError(f"no tensor {found.unexpected_keys[0]} in the network")
        # Decoders may have new tensors since that training, but the encoder must be complete.
        if any(name.startswith("image_encoder.") for name in found.missing_keys):
            raise RuntimeError("the image encoder is not whole")
        self._average.module.load_state_dict(self.network.state_dict())
        self.images, self.seconds = images, seconds
        return list(found.missing_keys)

    def restore(self, state: dict[str, Any]) -> None:
        """Resumes from a state, with this plan."""
        self.step, self.images, self.seconds = state["step"], state["images"], state["seconds"]
        self._recent = state["recent"]
        self.network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])

    def _take_step(self) -> None:
        plan = self.plan
        # The size of images is the same in all processes; the images differ.
        common = RandomSource((plan.seed, self.step))
        size = plan.sizes[common.whole(0, len(plan.sizes) - 1)]
        rounds = Rounds(common.whole(2, 3), common.whole(0, 4) if common.happens(0.3) else 0)
        random = RandomSource((plan.seed, self.step, self._processes.rank + 1), self._device)
        episodes = [draw_episode(random, plan.images_at(size), size) for _ in range(plan.episodes)]
        for group in self._optimiser.param_groups:
            group["lr"] = plan.rate_at(self.step)
        set_input_size(self.network, size)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
            loss, scores = self._losses(episodes, rounds, random)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = list(self.network.parameters())
        self._processes.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        self._optimiser.step()
        self._average.update_parameters(self.network)
        self.step += 1
        self.images += sum(len(each.images) for each in episodes) * self._processes.size
        self._note({"loss": loss, **scores})

    def _losses(
        self, episodes: list[Episode], rounds: Rounds, random: RandomSource
    ) -> tuple[Tensor, dict[str, Tensor]]:
        images = torch.cat([each.images for each in episodes])
        features = self._segmenter.encode(images[:, None].expand(-1, 3, -1, -1))
        masks = choose_masks(episodes, random)
        shown = masks.flatten(1).any(1)
        loss, dsc = prompt_loss(
            self._segmenter, chosen(features, shown), masks[shown], rounds, random
        )
        scores = {"prompt_dsc": dsc[0].mean(), "corrected_dsc": dsc[-1].mean()}
        found = []
        start = 0
        for episode in episodes:
            own = slice(start, start + len(episode.images))
            start = own.stop
            part = chosen(features, own)
            context, context_dsc = context_loss(self.network, part, episode, self._loss, random)
            loss = loss + context / len(episodes)
            found.append(context_dsc)
        scores["context_dsc"] = torch.stack(found).nanmean()
        return loss, scores

    def _note(self, values: dict[str, Tensor]) -> None:
        for name, tensor in values.items():
            value = float(tensor.detach())
            if value == value:
                before = self._recent.get(name, value)
                self._recent[name] = _RECENT * before + (1 - _RECENT) * value
            else:
                self._recent.setdefault(name, 0.0)
