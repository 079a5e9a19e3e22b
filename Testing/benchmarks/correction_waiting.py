"""How long a user waits for the correction worker, and what it takes of memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.interactive.protocol import SESSION_FILE
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.prompts.prompt_set import PromptSet
from SAMFineTuneLib.volumes import Geometry, write_volume
from SAMFineTuneLib.worker.environment import worker_environment
from Testing.benchmarks.table import markdown

_CLICKS = 60
_SLICES = 300
_REPEATS = 5


@dataclass
class Waiting:
    """Milliseconds of single waits, by what was waited for; and memory in MiB."""

    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """Median and 95th percentile."""
        rows: list[list[Any]] = [
            [name, statistics.median(each), float(np.percentile(each, 95))]
            for name, each in self.milliseconds.items()
        ]
        table = markdown(["waiting for", "median, ms", "95 %, ms"], rows, digits=1)
        lines = [f"{name}: {mebibytes:.0f} MiB" for name, mebibytes in self.memory.items()]
        return "\n".join([table, "", *lines])

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {"milliseconds": self.milliseconds, "memory_mib": self.memory}


def waiting_times(data: Path) -> Waiting:
    """Starter through the worker at 256 and 512 pixels; vit_t at 1024 in this process."""
    waiting = Waiting()
    _ask_worker(waiting, "starter 256", data / "ct_abdomen_3mm" / "ct.nii.gz")
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.nrrd"
        _write_large(large)
        _ask_worker(waiting, f"starter 512, {_SLICES} slices", large)
    _time_large_network(waiting)
    return waiting


def _ask_worker(waiting: Waiting, name: str, volume: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / SESSION_FILE).write_text(json.dumps({"volume": str(volume)}), encoding="utf-8")
        words = [sys.executable, "-m", "SAMFineTuneLib", "serve", str(folder)]
        environment = worker_environment({**os.environ, "SAMFINETUNE_CACHE": temporary})
        with subprocess.Popen(words, stdin=-1, stdout=-1, text=True, env=environment) as process:
            talk = _Talk(process)
            slices, rows, columns = talk.until("ready")["shape"]
            embed, answer = (
                waiting.milliseconds.setdefault(f"{name}: {what}", [])
                for what in ("slice in view embedded", "prompt to mask")
            )
            random = np.random.default_rng(0)
            for turn in range(_CLICKS):
                number = int(random.integers(slices))
                embed.append(talk.ask(kind="look_at", slice=number))
                at = [columns * 0.4 + turn / 4, rows * 0.5, number]
                prompts = [{"kind": "point", "at": at}]
                answer.append(talk.ask(kind="find_mask", slice=number, prompts=prompts))
            resident = psutil.Process(process.pid).memory_info().rss
            waiting.memory[f"{name}: worker"] = resident / 2**20
            talk.say(kind="close")


class _Talk:
    """Requests and answers, one after another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._count = 0

    def say(self, **request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def until(self, kind: str) -> dict[str, Any]:
        """The next message of a kind; a failure ends the benchmark."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
            if message["type"] == "failure":
                raise RuntimeError(line)
            if message["type"] == kind:
                return message
        raise RuntimeError("the worker has ended")

    def ask(self, **request: Any) -> float:
        """Milliseconds until the answer."""
        self._count += 1
        start = time.perf_counter()
        self.say(id=self._count, **request)
        self.until("answer")
        return 1000 * (time.perf_counter() - start)


def _write_large(path: Path) -> None:
    random = np.random.default_rng(0)
    array = random.integers(0, 1000, (_SLICES, 512, 512), dtype=np.int16)
    geometry = Geometry(
        (512, 512, _SLICES), (0.7, 0.7, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)
    )
    write_volume(path, array, geometry, compress=False)


@torch.inference_mode()
def _time_large_network(waiting: Waiting) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    segmenter = PromptedSegmenter(build("vit_t", 1024).eval())
    image = torch.randn(1, 3, 1024, 1024)
    prompts = PromptSet.none(1).with_points(torch.tensor([[500.0, 400.0]]), torch.tensor([1]))
    embed, decode = (
        waiting.milliseconds.setdefault(f"vit_t 1024: {what}", [])
        for what in ("slice in view embedded", "prompt to mask")
    )
    for _ in range(_REPEATS):
        start = time.perf_counter()
        features = segmenter.encode(image)
        middle = time.perf_counter()
        logits, _ = segmenter.decode(features, prompts)
        end = time.perf_counter()
        prompts = prompts.with_mask(logits)
        embed.append(1000 * (middle - start))
        decode.append(1000 * (end - middle))
    torch.set_num_threads(threads)
