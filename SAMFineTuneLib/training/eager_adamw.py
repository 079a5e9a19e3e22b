"""AdamW without the import of PyTorch's compiler.

PyTorch's optimisers import its compiler (`torch._dynamo`) when they are constructed, so that
compiled programs may call them. This import takes three seconds on two slow processor cores, in
which no progress is seen: without it a fine-tune made its first step after 10.1 s, with it after
13.1 s. Here the same methods are called without the wrapping that imports the compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

_STEP = unwrap(AdamW.step)


class EagerAdamW(AdamW):
    """`torch.optim.AdamW` with exactly the same results."""

    add_param_group = unwrap(Optimizer.add_param_group)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    state_dict = unwrap(Optimizer.state_dict)
    zero_grad = unwrap(Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, as `AdamW.step`."""
        return _STEP(self, closure)
