"""Finds the processors, memory and GPUs of this computer, and the preset that suits them."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import Any

import psutil

from SAMFineTuneLib.worker.package_loading import loading_packages

# Cards that are sold with 8 GB report somewhat less, because the driver reserves a part.
_STUDY_MEMORY_BYTES = 7_500_000_000


@dataclass(frozen=True)
class Device:
    """A processor that tensors can be on.

    Attributes:
        name: "cuda:0", "mps" or "cpu", as the option `--device` takes it.
        description: its name by its maker.
        memory_bytes: its memory; None if it is not known.
    """

    name: str
    description: str
    memory_bytes: int | None


@dataclass(frozen=True)
class Hardware:
    """The hardware of this computer.

    Attributes:
        processors: number of processor cores (hardware threads) that this program may use.
        memory_bytes: main memory.
        devices: the devices, the fastest first; the CPU is always among them.
        torch: version of torch; None if it is missing or does not load.
        problems: texts about what could not be found out.
        preset: the preset that suits: "laptop" or "study".
        why: a text that says why this preset suits.
    """

    processors: int
    memory_bytes: int
    devices: list[Device]
    torch: str | None
    problems: list[str] = field(default_factory=list)

    @property
    def preset(self) -> str:
        """The preset that suits."""
        return "study" if self._large_gpu() else "laptop"

    @property
    def why(self) -> str:
        """Why that preset suits."""
        gpus = [device for device in self.devices if device.name != "cpu"]
        gpu = self._large_gpu() or next(iter(gpus), None)
        if gpu is not None:
            return f"{gpu.description} has {_gigabytes(gpu)} of memory; study needs 8 GB"
        return "no GPU that torch can use was found" if self.torch else "torch does not load"

    def _large_gpu(self) -> Device | None:
        for device in self.devices:
            if device.name != "cpu" and (device.memory_bytes or 0) >= _STUDY_MEMORY_BYTES:
                return device
        return None


def find_hardware() -> Hardware:
    """Asks the system and torch; `problems` says what they could not tell."""
    problems: list[str] = []
    memory = psutil.virtual_memory().total
    torch = _torch(problems)
    gpus = [] if torch is None else [*_cuda(torch, problems), *_mps(torch, problems)]
    cpu = Device("cpu", platform.processor() or platform.machine() or "CPU", memory)
    return Hardware(
        processors=_processors(),
        memory_bytes=memory,
        devices=[*gpus, cpu],
        torch=None if torch is None else str(torch.__version__),
        problems=problems,
    )


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _torch(problems: list[str]) -> Any:
    try:
        with loading_packages():
            import torch
    # A torch that is not completely installed, or whose libraries do not fit this system, may raise
    # any exception while it loads. It is reported here.
    except Exception as error:
        problems.append(f"torch does not load: {_text(error)}")
        return None
    return torch


def _cuda(torch: Any, problems: list[str]) -> list[Device]:
    try:
        if not torch.cuda.is_available():
            return []
        found = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    # Drivers that do not fit may raise any exception too.
    except Exception as error:
        problems.append(f"CUDA does not answer: {_text(error)}")
        return []
    return [
        Device(f"cuda:{number}", each.name, int(each.total_memory))
        for number, each in enumerate(found)
    ]


def _mps(torch: Any, problems: list[str]) -> list[Device]:
    try:
        if not torch.backends.mps.is_available():
            return []
        memory = int(torch.mps.recommended_max_memory())
    except AttributeError:
        # Releases of torch before 2.5 do not tell how much of the shared memory the GPU may use.
        memory = None
    except Exception as error:
        problems.append(f"Apple's MPS does not answer: {_text(error)}")
        return []
    return [Device("mps", "Apple GPU", memory)]


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _gigabytes(device: Device) -> str:
    known = device.memory_bytes is not None
    return f"{(device.memory_bytes or 0) / 1e9:.1f} GB" if known else "an unknown amount"
