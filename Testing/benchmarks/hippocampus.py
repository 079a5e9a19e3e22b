"""Twenty unseen volumes from one labelled slice in each of five: time, memory, DSC.

    python -m Testing.benchmarks.hippocampus [--json FILE] [--axis axial] [-- FINETUNE OPTIONS]

Of five volumes of `hippocampus_mr` one slice each is labelled, at 10, 30, 50, 70 and 90 % of the
structure's height, and one more is known to be empty: the slice just below the structure in the
first volume, just above it in the second, and so on by turns ("below" is the smaller slice number).
The real commands `finetune` (preset laptop, backbone starter) and `apply` run; the twenty volumes
that follow are segmented whole. Beside it stands a U-Net trained from scratch on the same slices
for as long as `finetune` took.

The volumes are stacked along the axial direction unless --axis says otherwise: there the crop shows
the anterior and the posterior part, the two labels, side by side on most slices.

How to read it: DSC is computed for each volume in 3-D, and the mean and the standard deviation are
over volumes. "whole" counts every slice, so that what is found above and below the structure is
false; "non-empty" counts only the slices that truly show the structure, which is easier and how
some studies measure. "union" takes both labels for one structure. The last row is the share of
truly empty slices on which something was found.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.evaluation import dice
from SAMFineTuneLib.jobs.schema import Example
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Labelmap, read_labelmap, read_volume, write_labelmap
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks.few_slices import keep_slices, labelled_range
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown
from Testing.benchmarks.tune_and_apply import tune_and_apply
from Testing.benchmarks.unet_baseline import DEFAULT_SIZE, train_unet

HEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9)
UNSEEN = 20
STRUCTURES = {"anterior": (1,), "posterior": (2,), "union": (1, 2)}
_EMPTY_FOUND = "empty slices with something found"


def few_labelled(
    truth: Labelmap, axis: str, height: float, empty_above: bool
) -> tuple[Labelmap, int, int]:
    """A labelmap with one slice left, that slice's number, and that of the empty slice."""
    first, last = labelled_range(truth, axis, STRUCTURES["union"])
    shown = round(first + height * (last - first))
    few = keep_slices(truth, axis, {label: [shown] for label in STRUCTURES["union"]})
    return few, shown, last + 1 if empty_above else first - 1


def choose_volumes(data: Path, first: int) -> tuple[list[str], list[str]]:
    """File names of the five volumes to learn from and of the unseen ones behind them."""
    names = [path.name for path in sorted((data / "images").iterdir())]
    names = names[first:] + names[:first]
    return names[: len(HEIGHTS)], names[len(HEIGHTS) : len(HEIGHTS) + UNSEEN]


def write_examples(
    names: Sequence[str], data: Path, axis: str, folder: Path
) -> list[dict[str, Any]]:
    """Labelmaps with one slice each, and the list that `finetune --examples` reads."""
    examples = []
    for turn, (name, height) in enumerate(zip(names, HEIGHTS, strict=True)):
        truth = read_labelmap(data / "labels" / name)
        few, shown, empty = few_labelled(truth, axis, height, empty_above=turn % 2 == 1)
        segmentation = folder / f"few_{name}"
        write_labelmap(segmentation, few)
        examples.append(
            {
                "volume": str(data / "images" / name),
                "segmentation": str(segmentation),
                "axis": axis,
                "labelled": [shown],
                "empty": [empty],
            }
        )
    write_json(folder / "examples.json", examples)
    return examples


def scores_of_volume(prediction: Labelmap, truth: Labelmap, axis: str) -> dict[str, float | None]:
    """DSC of each structure, whole and on non-empty slices; and how many empty slices are not."""
    found, true = SliceStack.of(prediction, axis), SliceStack.of(truth, axis)
    shows = np.array([true[number].any() for number in range(len(true))])
    taken = [number for number, shown in enumerate(shows) if shown]
    scores: dict[str, float | None] = {}
    for name, labels in STRUCTURES.items():
        masks = np.isin(found.array, labels), np.isin(true.array, labels)
        scores[f"{name}, whole"] = dice(*masks)
        scores[f"{name}, non-empty"] = dice(*(_slices(mask, taken, true.axis) for mask in masks))
    wrong = [bool(found[number].any()) for number, shown in enumerate(shows) if not shown]
    scores[_EMPTY_FOUND] = float(np.mean(wrong)) if wrong else None
    return scores


def _slices(mask: NDArray[np.bool_], numbers: Sequence[int], axis: int) -> NDArray[np.bool_]:
    return np.take(mask, numbers, axis=axis)


def summary(volumes: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over volumes of every score."""
    found = {}
    for name in volumes[0]:
        values = [value for each in volumes if (value := each[name]) is not None]
        found[name] = {"mean": float(np.mean(values)), "deviation": float(np.std(values))}
    return found


def report(methods: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """One row a score, one column a method."""
    rows: list[list[Cell]] = []
    for name in next(iter(methods.values())):
        scored = [found[name] for found in methods.values()]
        rows.append([name, *(f"{each['mean']:.3f} ± {each['deviation']:.3f}" for each in scored)])
    return markdown(["DSC", *methods], rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--axis", choices=("axial", "coronal", "sagittal"), default="axial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--first", type=int, default=0, metavar="N", help="learn from the N-th volume and the next"
    )
    parser.add_argument("--no-unet", action="store_true", help="leave the U-Net out")
    parser.add_argument("--unet-size", type=int, default=DEFAULT_SIZE, metavar="PIXELS")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    data: Path = chosen.data / "hippocampus_mr"
    learnt, unseen = choose_volumes(data, chosen.first)
    images = [data / "images" / name for name in unseen]
    unet = None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        examples = write_examples(learnt, data, chosen.axis, folder)
        named = ("--examples", folder / "examples.json")
        run = tune_and_apply(named, images, folder, chosen.seed, chosen.options)
        segmentations = {"fine-tuned": run.segmentations}
        if not chosen.no_unet:
            print(f"U-Net for {run.tuned.seconds:.0f} s …", file=sys.stderr, flush=True)
            sources = [Example(**example) for example in examples]
            trained = train_unet(
                sources, run.tuned.seconds, chosen.unet_size, chosen.seed, folder / "unet"
            )
            unet = trained.description
            segmentations["U-Net"] = [trained.segment(read_volume(path)) for path in images]
    truths = [read_labelmap(data / "labels" / name) for name in unseen]
    volumes = {
        method: [
            scores_of_volume(prediction, truth, chosen.axis)
            for prediction, truth in zip(found, truths, strict=True)
        ]
        for method, found in segmentations.items()
    }
    methods = {method: summary(each) for method, each in volumes.items()}
    print(f"{report(methods)}\n\n{run.cost_table()}")
    if unet:
        print(f"\nU-Net: {unet}")
    if chosen.json:
        figures = {
            "seed": chosen.seed,
            "axis": chosen.axis,
            "examples": examples,
            "unseen": unseen,
            "methods": methods,
            "volumes": volumes,
            "fine-tune": run.to_json(),
            "unet": unet,
        }
        write_json(chosen.json, figures)


if __name__ == "__main__":
    main()
