"""Chooses the processor that computes with tensors."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from SAMFineTuneLib.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


def choose_device(requested: str) -> torch.device:
    """The requested device; "auto" takes CUDA if there is any, then Apple's MPS, then the CPU.

    Raises:
        InputError: the requested device is not available.
    """
    if requested == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(requested)
    if device.type == "cuda":
        _require_cuda(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise _absent("Apple's MPS", "this computer or this build of torch has none")
    return device


def _require_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise _absent("CUDA", "torch finds no NVIDIA GPU that it can use")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise _absent(str(device), f"there are {torch.cuda.device_count()} CUDA devices")


def _absent(name: str, reason: str) -> InputError:
    return InputError(
        f"{name} was asked for but {reason}",
        "compute on the CPU, or have the device chosen automatically",
        code="device_absent",
    )


def ready_to_predict(network: Network, device: torch.device) -> Network:
    """Puts a network in eval mode and on a device, in the fastest order of memory there.

    On a CPU, convolutions without gradients are faster where the channels of a pixel lie side by
    side: the starter takes 0.8 of the time, TinyViTs take 0.9 (`Testing.benchmarks.memory_order`).
    Their gradients are slower in that order, and so a fine-tune keeps the usual one.

    Args:
        network: changed in place.
        device: to compute on.
    """
    network.eval().to(device)
    if device.type == "cpu":
        # torch's own types do not know this argument of modules.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def autocast(device: torch.device) -> torch.autocast:
    """A context for mixed precision: bfloat16 on CUDA devices that support it, none elsewhere.

    bfloat16 needs no loss scaling, and every CUDA device since Ampere supports it; on CPUs without
    matrix extensions it is slower than float32.
    """
    usable = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=usable)
