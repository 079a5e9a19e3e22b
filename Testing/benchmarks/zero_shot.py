"""The starter network as it comes, prompted on single slices of real images: DSC and clicks.

    python -m Testing.benchmarks.zero_shot [--weights FILE ...] [--size 256] [--json FILE]
                                           [--figure PNG] [--sheet PNG]

Nothing is fine-tuned: the weights have seen no image of the data sets. `single_slices` says which
slices are taken; every network gets the same ones, and the same boxes and first clicks. All
structures are prompted one by one, on one slice each; the volume tells the grey levels' window
only. Without --weights it is the network that comes with the program; "random" shows what can be
had for nothing.

How to read it: every figure is a mean over slices, DSC unless its column says otherwise, counted
on the slice's own pixels.

* filled box: DSC of the prompt itself, the inside of the jittered box; a network that does not
  beat it has seen nothing in the image.
* box: from the tight box, each side moved by a normal number whose deviation is 10 % of the box's
  width or height.
* N clicks: the first one in the middle of the structure, each next one in the middle of the largest
  remaining error, positive where the mask lacks and negative where it has too much; the previous
  mask is a prompt too. The user knows the truth and never misses, which flatters the network. The
  middle is a place well inside: what is wider than two fifths of the square has many of these, and
  the uppermost one is taken (`prompts.simulated.depth_of`).
* box + N: the box, then N such clicks.
* clicks to 0.90: how many it takes to a DSC of 0.90, counted as 11 where 10 do not suffice; "never"
  is the share of slices where they do not.

Data sets differ in size by a factor of sixty: the mean over data sets is what to compare networks
by. --figure draws it against how many images a network was trained on, as the weights' card
tells; --sheet draws some slices as the last one of the networks sees them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.pretraining.synthetic.starter_weights import CARD_KEY
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import load_checkpoint
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks.learning_curve import draw_learning_curve
from Testing.benchmarks.prompt_scores import TargetScore, mean_columns, score_volume
from Testing.benchmarks.prompt_sheet import draw_prompt_sheet
from Testing.benchmarks.response_time import response_times
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.single_slices import TargetVolume, read_targets, sources
from Testing.benchmarks.table import Cell, markdown

_IN_FIGURE = ("box", "1 click", "3 clicks", "5 clicks")


@dataclass(frozen=True)
class Measured:
    """One network's figures.

    Attributes:
        weights: their file, None for random ones.
        card: how they were trained.
        times: see `response_times`.
    """

    weights: Path | None
    card: Mapping[str, Any]
    scores: Sequence[TargetScore]
    times: Mapping[str, float]

    @property
    def title(self) -> str:
        """What it is, for people."""
        if self.weights is None:
            return "random weights"
        images = self.card.get("images")
        return self.weights.name + (f", {images} training images" if images else "")

    def by_data_set(self) -> dict[str, list[TargetScore]]:
        """The scores of each data set."""
        found: dict[str, list[TargetScore]] = {}
        for score in self.scores:
            found.setdefault(score.data_set, []).append(score)
        return found

    def mean_over_data_sets(self) -> dict[str, float]:
        """Of every column, each data set counting as much as the others."""
        means = [mean_columns(scores) for scores in self.by_data_set().values()]
        return {name: float(np.mean([each[name] for each in means])) for name in means[0]}

    def table(self) -> str:
        """One row a data set, then both means."""
        rows: list[tuple[str, int, Mapping[str, float]]] = [
            (name, len(scores), mean_columns(scores)) for name, scores in self.by_data_set().items()
        ]
        count = len(self.scores)
        rows.append(("mean over slices", count, mean_columns(self.scores)))
        rows.append(("mean over data sets", count, self.mean_over_data_sets()))
        cells: list[list[Cell]] = [[name, number, *each.values()] for name, number, each in rows]
        return markdown(["data set", "slices", *rows[0][2]], cells)

    def report(self) -> str:
        """Table and times."""
        threads, embed, prompt = (self.times[key] for key in ("threads", "embed_ms", "prompt_ms"))
        times = f"{embed:.0f} ms to embed a slice, {prompt:.0f} ms from a prompt to its mask"
        return f"{self.title}\n\n{self.table()}\n\n{times} (median, {threads} threads)\n"

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "weights": self.weights,
            "card": self.card,
            "data_sets": {name: mean_columns(each) for name, each in self.by_data_set().items()},
            "mean_over_slices": mean_columns(self.scores),
            "mean_over_data_sets": self.mean_over_data_sets(),
            "times": self.times,
            "slices": [asdict(score) for score in self.scores],
        }


def load_network(weights: Path | None, size: int) -> PromptedSegmenter:
    """The starter network, ready to be asked."""
    torch.manual_seed(0)
    network = build("starter", size)
    if weights is not None:
        load_checkpoint(network, weights)
    return PromptedSegmenter(network.eval())


def read_card(weights: Path | None) -> dict[str, Any]:
    """How the weights were trained; empty where the file does not tell."""
    if weights is None:
        return {}
    with safe_open(weights, "pt") as file:
        metadata = file.metadata() or {}
    card: dict[str, Any] = json.loads(metadata.get(CARD_KEY, "{}"))
    return card


def measure(
    segmenter: PromptedSegmenter, weights: Path | None, volumes: Sequence[TargetVolume]
) -> Measured:
    """All figures of one network."""
    start = time.monotonic()
    scores = [score for volume in volumes for score in score_volume(segmenter, volume)]
    times = response_times(segmenter, volumes)
    print(f"{weights or 'random'}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return Measured(weights, read_card(weights), scores, times)


def _weights_or_random(text: str) -> Path | None:
    return None if text == "random" else Path(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument(
        "--weights",
        type=_weights_or_random,
        nargs="+",
        metavar="FILE|random",
        default=[find_weights("starter", None)],
    )
    parser.add_argument("--size", type=int, default=256, metavar="PIXELS", help="of the square")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw DSC by training here")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw some slices here")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    chosen = _arguments()
    # Many small steps: on a busy machine threads would wait for each other most of the time.
    torch.set_num_threads(1)
    volumes = [read_targets(source) for source in sources(chosen.data)]
    found = []
    for weights in chosen.weights:
        segmenter = load_network(weights, chosen.size)
        found.append(measure(segmenter, weights, volumes))
        print(found[-1].report(), flush=True)
    if chosen.sheet:
        draw_prompt_sheet(chosen.sheet, segmenter, volumes, found[-1].title)
    if chosen.figure:
        trained = {each.card["images"]: each for each in found if "images" in each.card}
        means = {images: each.mean_over_data_sets() for images, each in sorted(trained.items())}
        draw_learning_curve(chosen.figure, means, _IN_FIGURE)
    if chosen.json:
        write_json(
            chosen.json, {"size": chosen.size, "networks": [each.to_json() for each in found]}
        )


if __name__ == "__main__":
    main()
