"""The optimiser without PyTorch's compiler gives the numbers of PyTorch's own."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from SAMFineTuneLib.training.eager_adamw import EagerAdamW
from Testing.support.repository import REPOSITORY


def trained(kind: type[torch.optim.AdamW], interrupted: bool = False) -> list[torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2))
    optimiser = kind(network.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(10):
        if interrupted and step == 4:
            state = optimiser.state_dict()
            optimiser = kind(network.parameters(), lr=1e-2, weight_decay=0.1)
            optimiser.load_state_dict(state)
        optimiser.zero_grad(set_to_none=True)
        network(torch.randn(3, 5)).square().sum().backward()
        optimiser.step()
    return [each.detach() for each in network.parameters()]


def test_the_numbers_are_the_same() -> None:
    for interrupted in (False, True):
        ours, theirs = trained(EagerAdamW, interrupted), trained(torch.optim.AdamW)
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_the_compiler_is_not_loaded() -> None:
    code = """
import sys, torch
from SAMFineTuneLib.training.eager_adamw import EagerAdamW
weight = torch.nn.Parameter(torch.ones(3))
optimiser = EagerAdamW([weight])
weight.sum().backward()
optimiser.step()
optimiser.load_state_dict(optimiser.state_dict())
optimiser.zero_grad()
print("torch._dynamo" in sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "False"
