"""Measures one case of `backbone_step` and prints it as JSON.

python -m Testing.benchmarks.single_step CASE REPETITIONS
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from SAMFineTuneLib.adaptation.strategy import adapt
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.slices.intensity import IntensityWindow
from SAMFineTuneLib.training.feature_cache import CachedSample, FeatureCache
from SAMFineTuneLib.training.loss import PartialLabelLoss
from SAMFineTuneLib.training.sampling import Batch, SliceSampler
from SAMFineTuneLib.training.slice_pool import SlicePool
from Testing.benchmarks.backbone_step import Case
from Testing.benchmarks.mobile_sam_network import PlainLoss, PlainMobileSam
from Testing.benchmarks.process_cost import own_peak_bytes, own_resident_bytes

BATCH = 2
STRUCTURES = 2


def measure(case: Case, repetitions: int, folder: Path) -> dict[str, Any]:
    """Seconds and bytes of a case; `folder` holds cached features."""
    torch.manual_seed(0)
    if case.implementation == "packages":
        action, extra = _packages(case)
    else:
        action, extra = _library(case, folder)
    before = own_resident_bytes()
    action()
    seconds, cpu_seconds = [], []
    for _ in range(repetitions):
        started, cpu_started = time.perf_counter(), time.process_time()
        action()
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    peak = own_peak_bytes()
    return {
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "cpu_seconds": statistics.median(cpu_seconds),
        "load_average": psutil.getloadavg()[0],
        "peak_bytes": peak,
        "before_bytes": before,
        "threads": torch.get_num_threads(),
        "cached_stages": extra.get("cached_stages"),
        "stages": extra.get("stages"),
        "cached_bytes_of_a_slice": extra.get("cached_bytes"),
        # Behind the peak, which it must not raise.
        "drawing_seconds": _drawing_seconds(case),
    }


def _library(case: Case, folder: Path) -> tuple[Callable[[], object], dict[str, int]]:
    network = build(case.backbone, case.size)
    segmenter = AutomaticSegmenter(network, STRUCTURES)
    adapt(network, case.method, case.scope)  # type: ignore[arg-type]
    if case.task == "prediction":
        segmenter.eval()
        image = torch.randn(1, 3, case.size, case.size)
        return torch.inference_mode()(lambda: segmenter(image)), {}
    segmenter.train()
    encoder = network.image_encoder
    stages = len(encoder.stages())
    start = encoder.frozen_prefix() if case.implementation == "library, cached" else 0
    batches, size = _batches(segmenter, start, folder)
    loss = PartialLabelLoss()
    step = Step(segmenter)

    def action() -> None:
        batch = batches()
        features = encoder.run(batch.state, start, stages)
        logits, iou_predictions = segmenter.decode(features)
        step.take(loss(logits, iou_predictions, batch.target, batch.known))

    return action, {"cached_stages": start, "stages": stages, "cached_bytes": size}


def _batches(
    segmenter: AutomaticSegmenter, start: int, folder: Path
) -> tuple[Callable[[], Batch], int]:
    """Gives batches, out of a filled feature cache where stages are spared; bytes of a sample."""
    images, target, known = _random_batch(segmenter.network.input_size)
    if not start:
        batch = Batch(FeatureState(images), target, known)
        return lambda: batch, 0
    cache: FeatureCache | None = None
    for number in range(BATCH):
        with torch.no_grad():
            state = segmenter.network.image_encoder.run(
                FeatureState(images[number : number + 1]), 0, start
            )
        sample = CachedSample(state, target[number])
        cache = cache or FeatureCache(folder, sample, slices=BATCH, variants=1)
        cache.put((number, 0), sample)
    assert cache is not None
    filled = cache

    def draw() -> Batch:
        samples = [filled.get((number, 0)) for number in range(BATCH)]
        x, *skips = (
            torch.cat(tensors).float()
            for tensors in zip(
                *((each.state.x, *each.state.skips) for each in samples), strict=True
            )
        )
        targets = torch.stack([each.target for each in samples])
        return Batch(FeatureState(x, tuple(skips)), targets, known)

    return draw, sum(2 * tensor.numel() for tensor in (state.x, *state.skips))


def _packages(case: Case) -> tuple[Callable[[], object], dict[str, int]]:
    network = PlainMobileSam()
    network.choose_trained(case.method, case.scope)
    if case.task == "prediction":
        network.eval()
        image = torch.randn(1, 3, case.size, case.size)
        return torch.inference_mode()(lambda: network(image)), {}
    network.train()
    images, target, _ = _random_batch(case.size)
    loss = PlainLoss()
    step = Step(network)
    return lambda: step.take(loss(network(images), target)), {}


class Step:
    """Gradient, clipping and AdamW on what trains."""

    def __init__(self, module: nn.Module) -> None:
        self._trained = [each for each in module.parameters() if each.requires_grad]
        self._optimiser = torch.optim.AdamW(self._trained, lr=1e-4, weight_decay=0.1)

    def take(self, loss: Tensor) -> None:
        """One step down the loss."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimiser.step()


def _random_batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.randn(BATCH, 3, size, size)
    target = torch.zeros(BATCH, size, size, dtype=torch.int32)
    target[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    target[:, size // 2 : -size // 4, size // 2 : -size // 4] = 2
    return images, target, torch.ones(BATCH, STRUCTURES + 1, dtype=torch.bool)


def _drawing_seconds(case: Case) -> float | None:
    """Seconds to draw and augment a batch of slices; None where the cache spares it."""
    if case.task != "step" or case.implementation != "library":
        return None
    network = build(case.backbone, case.size)
    image = np.random.default_rng(0).random((256, 256)).astype(np.float16)
    window = IntensityWindow(low=0, high=1, mean=0.5, standard_deviation=0.3)
    target = (image > 0.9).astype(np.uint8)
    known = np.ones(2, dtype=bool)
    slices = [LabelledSlice(image, target, known, window, (1.0, 1.0), 0, n) for n in range(BATCH)]
    sampler = SliceSampler(AutomaticSegmenter(network, 1), slices, 0, 100, cache_folder=None)
    pool = SlicePool(slices, range(BATCH))
    seconds = []
    for step in range(5):
        started = time.perf_counter()
        sampler.batch(pool, BATCH, step)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def main() -> None:
    case, repetitions = Case(**json.loads(sys.argv[1])), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(case, repetitions, Path(folder))))


if __name__ == "__main__":
    main()
