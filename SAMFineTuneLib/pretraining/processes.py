"""Several processes that train one network, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as distributed
from torch import nn


class ProcessGroup:
    """The processes of one training; alone unless torchrun started this one.

    Attributes:
        rank: this process, 0 … size - 1.
        size: how many there are.
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
        """Whether this process is the one that writes."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every process gets the mean of all processes' gradients."""
        if self.size == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        # One message: there are hundreds of small tensors.
        joined = torch.cat([each.flatten() for each in gradients])
        distributed.all_reduce(joined)
        joined /= self.size
        start = 0
        for each in gradients:
            each.copy_(joined[start : start + each.numel()].reshape(each.shape))
            start += each.numel()

    def any(self, here: bool) -> bool:
        """Whether it is so in any process; asked in all of them alike."""
        if self.size == 1:
            return here
        flag = torch.tensor([float(here)], device=self._device)
        distributed.all_reduce(flag)
        return bool(flag.item() > 0)

    def close(self) -> None:
        """Leaves the others."""
        if self.size > 1:
            distributed.destroy_process_group()
