"""AdamW for a program that compiles nothing.

PyTorch's optimisers load its compiler (`torch._dynamo`) when they are made, so that a compiled
program may call them. That import takes three seconds on two slow processor cores (a fine-tune's
first step came after 10.1 s in place of 13.1 s), and nobody sees any progress meanwhile. Here the
same methods are called without that wrapping.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

_STEP = unwrap(AdamW.step)


class EagerAdamW(AdamW):
    """`torch.optim.AdamW`, number for number."""

    add_param_group = unwrap(Optimizer.add_param_group)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    state_dict = unwrap(Optimizer.state_dict)
    zero_grad = unwrap(Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, as `AdamW.step`."""
        return _STEP(self, closure)
