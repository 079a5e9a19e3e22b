"""The starter beside LiteMedSAM, untuned, on the same slices and prompts.

    python -m Testing.benchmarks.peers [--backbones starter lite_medsam] [--slices N] [--quick]
        [--json FILE]

`single_slices` says which slices are taken; boxes and first clicks are the same for all networks,
as in `zero_shot`, which explains the columns. Each network sees grey levels as its description in
`networks.spec` says, at its own input size. "tight box" is the box around the structure, edge to
edge; "curve" compares it with the half-equalised grey curve of the starter where the network's own
is another one (--both-curves).

LiteMedSAM's weights must be on this computer (`checkpoints get lite_medsam`). It was trained with
boxes alone, and clicks are new to it. On two cores it takes about three hours for all data sets;
--slices takes so many of each volume, evenly spread; --quick takes three of one CT.

The few-shot tasks are measured by the benchmarks that exist, which take options of `finetune`:

    python -m Testing.benchmarks.hippocampus --no-unet -- --backbone lite_medsam --scope decoder
    python -m Testing.benchmarks.abdomen -- --backbone lite_medsam --scope decoder
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.networks.build import build
from SAMFineTuneLib.networks.spec import BACKBONES, GreyCurve, find
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.weights.official import load_checkpoint
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks.prompt_scores import TargetScore, mean_columns, score_volume
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.single_slices import TargetVolume, read_targets, sources
from Testing.benchmarks.table import Cell, markdown

_QUICK_SET, _QUICK_SLICES = "ct_abdomen_3mm", 3
_EVERY = sys.maxsize


@dataclass(frozen=True)
class Peer:
    """One network with one grey curve, and its scores."""

    backbone: str
    curve: GreyCurve
    scores: Sequence[TargetScore]

    def rows(self) -> list[list[Cell]]:
        """A row for each data set, and the mean over data sets."""
        sets: dict[str, list[TargetScore]] = {}
        for score in self.scores:
            sets.setdefault(score.data_set, []).append(score)
        means = {name: _columns(each) for name, each in sets.items()}
        columns = list(next(iter(means.values())))
        over = {key: float(np.mean([each[key] for each in means.values()])) for key in columns}
        named = [(name, len(sets[name]), each) for name, each in means.items()]
        named.append(("mean over data sets", len(self.scores), over))
        return [
            [self.backbone, self.curve, name, count, *each.values()] for name, count, each in named
        ]


def _columns(scores: Sequence[TargetScore]) -> dict[str, float]:
    tight = float(np.mean([score.tight_box for score in scores]))
    return {"tight box": tight, **mean_columns(scores)}


def load_peer(backbone: str, weights: Path | None) -> PromptedSegmenter:
    """A network with its weights, at its own input size."""
    network = build(backbone, find(backbone).default_input_size)
    load_checkpoint(network, find_weights(backbone, weights))
    return PromptedSegmenter(network.eval())


def measure(
    backbone: str,
    curve: GreyCurve,
    weights: Path | None,
    data: Path,
    most: int,
    only: str | None = None,
) -> Peer:
    """The scores of one network.

    Args:
        backbone: its name.
        curve: of grey levels.
        weights: its file; None for that of the cache.
        data: the folder of images.
        most: slices of each volume.
        only: the only data set; None for all.
    """
    segmenter = load_peer(backbone, weights)
    scores: list[TargetScore] = []
    for source in sources(data):
        if only in (None, source.data_set):
            volume = read_targets(source, curve)
            scores += score_volume(segmenter, _few_slices(volume, most))
        print(f"{backbone}, {curve}: {source.data_set}", file=sys.stderr, flush=True)
    return Peer(backbone, curve, scores)


def _few_slices(volume: TargetVolume, most: int) -> TargetVolume:
    numbers = list(volume.images)
    if len(numbers) <= most:
        return volume
    kept = {numbers[at] for at in np.linspace(0, len(numbers) - 1, most).astype(int)}
    images = {number: image for number, image in volume.images.items() if number in kept}
    return replace(
        volume, images=images, targets=[each for each in volume.targets if each.slice in kept]
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument(
        "--backbones", nargs="+", choices=list(BACKBONES), default=["starter", "lite_medsam"]
    )
    parser.add_argument("--lite-medsam", type=Path, metavar="FILE", help="its weights")
    parser.add_argument("--both-curves", action="store_true", help="measure each grey curve")
    parser.add_argument("--slices", type=int, default=_EVERY, metavar="N", help="of each volume")
    parser.add_argument("--quick", action="store_true", help="three slices of one CT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    chosen = _arguments()
    # Many small steps: on a busy machine threads would wait for each other most of the time.
    torch.set_num_threads(1)
    most, only = (_QUICK_SLICES, _QUICK_SET) if chosen.quick else (chosen.slices, None)
    peers = []
    for backbone in chosen.backbones:
        weights = chosen.lite_medsam if backbone == "lite_medsam" else None
        own = find(backbone).grey_curve
        curves: list[GreyCurve] = ["straight", "equalised"] if chosen.both_curves else [own]
        peers += [measure(backbone, each, weights, chosen.data, most, only) for each in curves]
    header = ["network", "grey curve", "data set", "slices", *_columns(peers[0].scores)]
    print(markdown(header, [row for peer in peers for row in peer.rows()]))
    if chosen.json:
        found: list[dict[str, Any]] = [asdict(peer) for peer in peers]
        write_json(chosen.json, {"peers": found})


if __name__ == "__main__":
    main()
