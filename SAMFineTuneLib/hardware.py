"""What this computer has to compute with, and the preset that suits it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import Any

import psutil

# Cards sold with 8 GB tell somewhat less, as the driver keeps a part.
_STUDY_MEMORY_BYTES = 7_500_000_000


@dataclass(frozen=True)
class Device:
    """A processor that tensors can be on.

    Attributes:
        name: as `--device` takes it: "cuda:0", "mps" or "cpu".
        description: what its maker calls it.
        memory_bytes: its memory; None where nobody tells.
    """

    name: str
    description: str
    memory_bytes: int | None


@dataclass(frozen=True)
class Hardware:
    """What was found.

    Attributes:
        processors: processor cores (hardware threads) that this program may use.
        memory_bytes: main memory.
        devices: the fastest first; the CPU is always there.
        torch: version of torch, None where it is missing or does not load.
        problems: what could not be asked, in words.
        preset: the preset that suits: "laptop" or "study".
        why: why, in words.
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
        told = self._large_gpu() or next(iter(gpus), None)
        if told is not None:
            return f"{told.description} has {_gigabytes(told)} of memory; study needs 8 GB"
        return "no GPU that torch can use was found" if self.torch else "torch does not load"

    def _large_gpu(self) -> Device | None:
        for device in self.devices:
            if device.name != "cpu" and (device.memory_bytes or 0) >= _STUDY_MEMORY_BYTES:
                return device
        return None


def find_hardware() -> Hardware:
    """Asks the system and torch; what cannot be asked is told in `problems`."""
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
        import torch
    # A torch that was installed halfway, or whose libraries do not fit this system, may raise
    # anything while it loads; that is what is to be found out here.
    except Exception as error:
        problems.append(f"torch does not load: {_words(error)}")
        return None
    return torch


def _cuda(torch: Any, problems: list[str]) -> list[Device]:
    try:
        if not torch.cuda.is_available():
            return []
        found = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    # Likewise: drivers that do not fit raise what they like.
    except Exception as error:
        problems.append(f"CUDA does not answer: {_words(error)}")
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
        # Releases before 2.5 do not tell how much of the common memory the GPU may take.
        memory = None
    except Exception as error:
        problems.append(f"Apple's MPS does not answer: {_words(error)}")
        return []
    return [Device("mps", "Apple GPU", memory)]


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _gigabytes(device: Device) -> str:
    known = device.memory_bytes is not None
    return f"{(device.memory_bytes or 0) / 1e9:.1f} GB" if known else "an unknown amount"
