"""The processor time of a prediction by the order in which the channels lie in memory, as a ratio.

    python -m Testing.benchmarks.memory_order [--repetitions 5]

Each network has random weights and predicts a batch of random squares, by turns in the usual order
of memory and in that of `device.ready_to_predict`; the shortest of all repetitions counts. It is
processor time, which another program on the machine changes little.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from torch import Tensor

from SAMFineTuneLib.device import ready_to_predict
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.networks.build import build
from Testing.benchmarks.table import Cell, markdown

CASES = (("starter", 256, 4), ("starter", 512, 2), ("lite_medsam", 128, 4), ("vit_t", 512, 2))
STRUCTURES = 2


def _seconds(segmenter: AutomaticSegmenter, squares: Tensor) -> float:
    began = time.process_time()
    segmenter(squares)
    return time.process_time() - began


@torch.inference_mode()
def measure(backbone: str, size: int, batch: int, repetitions: int) -> list[Cell]:
    """A row: the network, its input, both times in seconds, and their ratio."""
    usual = AutomaticSegmenter(build(backbone, size), STRUCTURES).eval()
    ready = ready_to_predict(copy.deepcopy(usual), torch.device("cpu"))
    squares = torch.randn(batch, 3, size, size)
    # The first of each is a warm-up.
    pairs = [(_seconds(usual, squares), _seconds(ready, squares)) for _ in range(repetitions + 1)]
    before, after = (min(times) for times in zip(*pairs[1:], strict=True))
    return [backbone, size, round(before, 3), round(after, 3), round(after / before, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    torch.set_num_threads(1)
    rows = [measure(*case, repetitions) for case in CASES]
    headings = ["network", "pixels", "usual order, s", "channels last, s", "ratio"]
    print(markdown(headings, rows, digits=3))


if __name__ == "__main__":
    main()
