"""Methods and places of adaptation on the same slices: DSC in unseen volumes, parameters, time.

    python -m Testing.benchmarks.strategies [--seeds 0,1,2] [--quick] [-- FINETUNE OPTIONS]

Each strategy learns one slice in each of five hippocampi and segments twenty others, as
`Testing.benchmarks.hippocampus` does; see there how to read the figures. The DSC is that of whole
volumes, the mean over volumes and seeds for either part and their union. `--quick` takes one seed,
two strategies, 20 steps and two volumes, and shows only that everything works.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from SAMFineTuneLib.cli.arguments import numbers_or
from SAMFineTuneLib.volumes import read_labelmap
from Testing.benchmarks.hippocampus import (
    STRUCTURES,
    choose_volumes,
    scores_of_volume,
    write_examples,
)
from Testing.benchmarks.process_cost import command, run_command
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown
from Testing.benchmarks.tune_and_apply import tune_and_apply

STRATEGIES = {
    "vanilla": ("--method", "vanilla"),
    "adapter, first and last two blocks (A)": (
        *("--method", "adapter", "--adapter-blocks", "first2last2"),
    ),
    "adapter, all blocks (A*)": ("--method", "adapter", "--adapter-blocks", "all"),
    "LoRA, q and v": ("--method", "lora"),
    "LoRA, all parts": ("--method", "lora", "--lora-parts", "q,k,v,o,mlp"),
    "norm": ("--method", "norm"),
    "bias": ("--method", "bias"),
}
_QUICK = ("vanilla", "norm")


def _trainable(options: tuple[str, ...], more: list[str]) -> float:
    """Millions of parameters that train, for two labels."""
    backbone = more[more.index("--backbone") + 1] if "--backbone" in more else "starter"
    with tempfile.TemporaryDirectory() as temporary:
        described = run_command(
            command("describe", "--backbone", backbone, "--classes", "2", *options),
            Path(temporary),
        )
    return float(described.result["trainable"]) / 1e6


def _mean(scores: list[float | None]) -> float:
    return float(np.mean([score for score in scores if score is not None]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--seeds", type=numbers_or(), default=[0, 1, 2], metavar="0,1,2")
    parser.add_argument("--quick", action="store_true", help="show only that everything works")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    chosen = parser.parse_args()
    data: Path = chosen.data / "hippocampus_mr"
    learnt, unseen = choose_volumes(data, 0)
    names = list(_QUICK if chosen.quick else STRATEGIES)
    more = [*(("--steps", "20") if chosen.quick else ()), *chosen.options]
    unseen = unseen[:2] if chosen.quick else unseen
    rows: list[list[Cell]] = []
    for name in names:
        scores, seconds = [], []
        for seed in chosen.seeds[:1] if chosen.quick else chosen.seeds:
            print(f"{name}, seed {seed} …", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                write_examples(learnt, data, "axial", folder)
                examples = ("--examples", folder / "examples.json")
                images = [data / "images" / each for each in unseen]
                run = tune_and_apply(examples, images, folder, seed, [*STRATEGIES[name], *more])
            seconds.append(run.tuned.seconds)
            scores += [
                scores_of_volume(found, read_labelmap(data / "labels" / each), "axial")
                for found, each in zip(run.segmentations, unseen, strict=True)
            ]
        means = [_mean([each[f"{part}, whole"] for each in scores]) for part in STRUCTURES]
        trainable = _trainable(STRATEGIES[name], chosen.options)
        rows.append([name, *means, float(np.mean(means)), trainable, float(np.mean(seconds))])
    print(markdown(["strategy", *STRUCTURES, "mean", "million parameters", "seconds"], rows))


if __name__ == "__main__":
    main()
