"""How long a user waits: for a slice to be embedded, and from a prompt to its mask."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from statistics import median

import torch
from torch import Tensor

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.prompts.prompt_set import PromptSet
from Testing.benchmarks.embedded_volume import EmbeddedVolume
from Testing.benchmarks.simulated_user import SimulatedUser
from Testing.benchmarks.single_slices import TargetVolume

_VOLUMES = 15
_REPEATS = 3
_THREADS = 2


def response_times(
    segmenter: PromptedSegmenter, volumes: Sequence[TargetVolume]
) -> dict[str, float]:
    """Median milliseconds over single slices of some volumes.

    Embedding begins with grey levels on the slice's own pixels; the way from a prompt to its mask
    begins with a click that corrects a mask, and ends on the slice's own pixels.
    """
    embedding: list[float] = []
    prompting: list[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    for volume in volumes[:_VOLUMES]:
        target = volume.targets[0]
        images = {target.slice: volume.images[target.slice]}
        single = replace(volume, images=images, targets=[target])
        embed = partial(EmbeddedVolume, segmenter, single)
        user = embed().user(single.targets)
        corrected = list(islice(user.clicks(), 2))[-1].prompts
        embedding += _milliseconds(embed)
        prompting += _milliseconds(partial(_answer, user, corrected))
    torch.set_num_threads(threads)
    return {
        "threads": _THREADS,
        "embed_ms": median(embedding),
        "prompt_ms": median(prompting),
    }


def _answer(user: SimulatedUser, prompts: PromptSet) -> Tensor:
    return user.masks(user.logits(prompts))


def _milliseconds(work: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - start))
    return found
