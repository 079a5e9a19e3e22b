"""What unlabelled slices add: none, those of the examples, those of the volumes to be segmented.

    python -m Testing.benchmarks.unlabelled [--seeds 0 1 2] [--with none examples targets ct]
        [--unseen 20] [--quick] [--json FILE] [-- FINETUNE OPTIONS]

One slice of each of five volumes of `hippocampus_mr` is labelled, and twenty other volumes are
segmented whole, as in `hippocampus.py`. The real commands run. Besides the labels `finetune`
learns from:

* none: nothing else.
* examples: the other slices of the five volumes.
* targets: the volumes that are then segmented, without their labels.
* ct: the targets and a CT of the abdomen, which is no image of this kind, as a check.

How to read it: the mean over seeds, and in brackets the lowest and the highest; "mean" is that of
both parts and of their union. "empty" is the share of truly empty slices on which something was
found. Seconds are those of `finetune`, its start included. Without a limit in steps the time limit
of the preset would give those runs fewer steps whose steps take longer, so that --steps is 320
unless the options behind -- say otherwise. --quick makes eight steps with one seed and two volumes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from SAMFineTuneLib.volumes import read_labelmap
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import hippocampus
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown, mean_and_range
from Testing.benchmarks.tune_and_apply import tune_and_apply

_SOURCES = ("none", "examples", "targets", "ct")
_PARTS = ("anterior, whole", "posterior, whole", "union, whole")
_EMPTY = "empty slices with something found"
_STEPS, _QUICK_STEPS, _QUICK_UNSEEN = 320, 8, 2

Scores = dict[str, float]


def unlabelled_options(source: str, data: Path, unseen: Sequence[str]) -> list[str]:
    """The options that tell a fine-tune what to learn from without labels."""
    if source == "examples":
        return ["--unlabelled-examples"]
    targets = [data / "hippocampus_mr" / "images" / name for name in unseen]
    ct = data / "ct_abdomen_3mm" / "ct.nii.gz"
    named = {"none": [], "targets": targets, "ct": [*targets, ct]}[source]
    return [word for path in named for word in ("--unlabelled", str(path))]


def trial(data: Path, source: str, seed: int, count: int, options: Sequence[str]) -> Scores:
    """The scores of one fine-tune, means over the unseen volumes, and its seconds."""
    folder_of = data / "hippocampus_mr"
    learnt, unseen = hippocampus.choose_volumes(folder_of, 0)
    unseen = unseen[:count]
    named = unlabelled_options(source, data, unseen)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hippocampus.write_examples(learnt, folder_of, "axial", folder)
        run = tune_and_apply(
            ("--examples", folder / "examples.json"),
            [folder_of / "images" / each for each in unseen],
            folder,
            seed,
            [*options, *named],
        )
    volumes = [
        hippocampus.scores_of_volume(found, read_labelmap(folder_of / "labels" / each), "axial")
        for found, each in zip(run.segmentations, unseen, strict=True)
    ]
    means = {key: each["mean"] for key, each in hippocampus.summary(volumes).items()}
    return {
        **{part.partition(",")[0]: means[part] for part in _PARTS},
        "mean": float(np.mean([means[part] for part in _PARTS])),
        "empty": means[_EMPTY],
        "seconds": run.tuned.seconds,
    }


def report(trials: dict[str, list[Scores]]) -> str:
    """One row a source of unlabelled slices."""
    names = list(next(iter(trials.values()))[0])
    rows: list[list[Cell]] = []
    for source, found in trials.items():
        scores = [[each[name] for each in found] for name in names[:-1]]
        seconds = float(np.mean([each["seconds"] for each in found]))
        rows.append([source, *(mean_and_range(each) for each in scores), seconds])
    return markdown(["without labels", *names], rows, digits=0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--with", dest="sources", nargs="+", choices=_SOURCES, default=_SOURCES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--unseen", type=int, default=hippocampus.UNSEEN, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that all runs")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    seeds, unseen, steps = chosen.seeds, chosen.unseen, _STEPS
    if chosen.quick:
        seeds, unseen, steps = seeds[:1], _QUICK_UNSEEN, _QUICK_STEPS
    options = ["--steps", str(steps), *chosen.options]
    trials: dict[str, list[Scores]] = {}
    for seed in seeds:
        for source in chosen.sources:
            print(f"{source}, seed {seed} …", file=sys.stderr, flush=True)
            found = trial(chosen.data, source, seed, unseen, options)
            trials.setdefault(source, []).append(found)
            print(found, file=sys.stderr, flush=True)
    print(report(trials))
    if chosen.json:
        write_json(chosen.json, trials)


if __name__ == "__main__":
    main()
