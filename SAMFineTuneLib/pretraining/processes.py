"""Training one network in several processes, which torchrun starts."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as distributed
from torch import nn


class ProcessGroup:
    """The processes of one training; only one process unless torchrun started it.

    Attributes:
        rank: number of this process, 0 … size - 1.
        size: number of processes.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        self._device = device
        if self.size > 1:
            if device.type == "cuda":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def is_first(self) -> bool:
        """Whether this is the first process, which writes files."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces the gradients of every process by the mean over all processes."""
        if self.size == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        # All gradients are sent in one message, because there are hundreds of small tensors.
        joined = torch.cat([each.flatten() for each in gradients])
        distributed.all_reduce(joined)
        joined /= self.size
        start = 0
        for each in gradients:
            each.copy_(joined[start : start + each.numel()].reshape(each.shape))
            start += each.numel()

    def any(self, here: bool) -> bool:
        """Whether `here` is true in any process; all processes must call it."""
        if self.size == 1:
            return here
        flag = torch.tensor([float(here)], device=self._device)
        distributed.all_reduce(flag)
        return bool(flag.item() > 0)

    def largest(self, here: float) -> float:
        """The largest of the numbers of all processes; all processes must call it."""
        if self.size == 1:
            return here
        number = torch.tensor([here], device=self._device)
        distributed.all_reduce(number, distributed.ReduceOp.MAX)
        return float(number.item())

    def close(self) -> None:
        """Leaves the group of processes."""
        if self.size > 1:
            distributed.destroy_process_group()
