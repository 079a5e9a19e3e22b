"""The shortest pre-training: its plan, and what tests ask of it."""

from __future__ import annotations

import torch
from torch import Tensor

from SAMFineTuneLib.pretraining.processes import ProcessGroup
from SAMFineTuneLib.pretraining.synthetic.plan import PretrainingPlan
from SAMFineTuneLib.pretraining.synthetic.training import Pretraining

CPU = torch.device("cpu")
# Six images a step.
TINY = PretrainingPlan(steps=4, episodes=1, images=1, sizes=(64,), warm_up=2)
QUICKLY = ("--episodes", "1", "--images", "1", "--sizes", "64", "--device", "cpu")


def shares_of(classes: Tensor, count: int) -> Tensor:
    """Class numbers (N, H, W) as shares (N, K, H, W)."""
    return torch.nn.functional.one_hot(classes, count).permute(0, 3, 1, 2).float()


SIDE = 4
# No step changes these: a key's bias adds the same to every score of a query, and what is added
# to every class alike changes no probability.
WITHOUT_EFFECT = ("k_proj.bias", "context_decoder.refinement.2.bias")


def started(plan: PretrainingPlan = TINY) -> Pretraining:
    return Pretraining(plan, CPU, ProcessGroup(CPU))


def weights_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in network.state_dict().items()}
