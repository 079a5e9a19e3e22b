"""What starter weights are worth: the same fine-tune from them and from random weights.

    python -m Testing.benchmarks.few_shot [--tasks abdomen tumour hippocampus] [--weights FILE]
        [--json FILE] [-- FINETUNE OPTIONS]

Each task has five labelled slices, and the real commands `finetune` (preset laptop, backbone
starter) and `apply` run twice with the same steps and seed:

* abdomen: ten structures of one CT, five slices each; DSC on the slices between that were not
  shown, as in `abdomen.py`; and the same from `apply --drawn`, which knows the slices drawn.
* tumour: a brain tumour on seven 6.5 mm slices of an MR, five of them shown (the first and the
  last, and three between); DSC on the other two, and on the whole volume.
* hippocampus: one slice of each of five volumes; twenty others whole, as in `hippocampus.py`. Then
  three slices of each part are drawn in each of these, evenly spaced: DSC on those between, of the
  model alone, of `apply --drawn`, and of shape interpolation.

How to read it: DSC, the mean over structures for the abdomen and over volumes for the hippocampus.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from SAMFineTuneLib.evaluation import dice
from SAMFineTuneLib.geometry.shape_interpolation import interpolate
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Labelmap, read_labelmap, write_labelmap
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import abdomen, hippocampus
from Testing.benchmarks.few_slices import evenly_spaced, keep_slices, slices_with
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown
from Testing.benchmarks.tune_and_apply import tune_and_apply

Scores = dict[str, float]
_TUMOUR_AXIS = "axial"
_TUMOUR_FILES = ("image.nrrd", "tumour.nrrd")


def abdomen_scores(data: Path, folder: Path, seed: int, options: Sequence[str]) -> Scores:
    """Mean over ten organs of the slices that were not shown."""
    task = abdomen.Task.read(data, 5)
    few = folder / "few.nii.gz"
    write_labelmap(few, task.few())
    example = ("--volume", task.volume_path, "--segmentation", few, "--axis", abdomen.AXIS)
    run = tune_and_apply(example, [task.volume_path], folder, seed, options, drawn=[few])
    found = (run.segmentations[0], run.with_drawn[0])
    alone, with_drawn = (abdomen.scores(task, each, 3.0)["mean"]["dsc"] for each in found)
    return {"abdomen, hidden slices": alone, "abdomen, hidden, between drawn": with_drawn}


def tumour_scores(data: Path, folder: Path, seed: int, options: Sequence[str]) -> Scores:
    """The two tumour slices that were not shown, and the whole volume."""
    volume, labels = (next((data / "brain_tumour_mr").glob(f"*{end}")) for end in _TUMOUR_FILES)
    truth = read_labelmap(labels)
    value = int(truth.array.max())
    shows = slices_with(truth, _TUMOUR_AXIS, [value])
    shown = [shows[int(each)] for each in np.linspace(0, len(shows) - 1, 5).round()]
    few = folder / "few.nii.gz"
    write_labelmap(few, keep_slices(truth, _TUMOUR_AXIS, {value: shown}))
    example = ("--volume", volume, "--segmentation", few, "--axis", _TUMOUR_AXIS)
    run = tune_and_apply(example, [volume], folder, seed, options)
    found, true = (SliceStack.of(each, _TUMOUR_AXIS) for each in (run.segmentations[0], truth))
    hidden = [number for number in shows if number not in shown]
    pairs = {
        "tumour, hidden slices": [
            np.stack([each[n] for n in hidden]) > 0 for each in (found, true)
        ],
        "tumour, whole": [each.array > 0 for each in (found, true)],
    }
    return {name: dice(*pair) or 0.0 for name, pair in pairs.items()}


def hippocampus_scores(data: Path, folder: Path, seed: int, options: Sequence[str]) -> Scores:
    """Means over twenty unseen volumes, every slice counted."""
    data = data / "hippocampus_mr"
    learnt, unseen = hippocampus.choose_volumes(data, 0)
    hippocampus.write_examples(learnt, data, "axial", folder)
    images = [data / "images" / name for name in unseen]
    truths = [read_labelmap(data / "labels" / name) for name in unseen]
    drawn = [folder / f"drawn_{name}" for name in unseen]
    for truth, path in zip(truths, drawn, strict=True):
        write_labelmap(path, keep_slices(truth, "axial", _drawn(truth)))
    examples = ("--examples", folder / "examples.json")
    run = tune_and_apply(examples, images, folder, seed, options, drawn)
    volumes = [
        hippocampus.scores_of_volume(found, truth, "axial")
        for found, truth in zip(run.segmentations, truths, strict=True)
    ]
    means = hippocampus.summary(volumes)
    names = [f"{name}, whole" for name in hippocampus.STRUCTURES]
    scores = {f"hippocampus, {name}": means[name]["mean"] for name in names}
    ways = {
        "the model alone": run.segmentations,
        "--drawn": run.with_drawn,
        "shape interpolation": [_interpolated(truth) for truth in truths],
    }
    for way, segmentations in ways.items():
        dsc = [_between(*pair) for pair in zip(segmentations, truths, strict=True)]
        scores[f"hippocampus, between 3 drawn: {way}"] = float(np.mean(dsc))
    return scores


def _drawn(truth: Labelmap) -> dict[int, list[int]]:
    """Three slices of each part."""
    return {label: evenly_spaced(truth, "axial", label, 3) for label in truth.labels}


def _interpolated(truth: Labelmap) -> Labelmap:
    axis = SliceStack.of(truth, "axial").axis
    array = interpolate(truth.array, axis, _drawn(truth), truth.geometry.spacing[::-1])
    return Labelmap(array, truth.geometry)


def _between(found: Labelmap, truth: Labelmap) -> float:
    """Mean DSC of both parts on the slices between their drawn ones."""
    stacks = [SliceStack.of(each, "axial") for each in (found, truth)]
    scores = []
    for label, drawn in _drawn(truth).items():
        hidden = [number for number in range(drawn[0], drawn[-1]) if number not in drawn]
        masks = [np.stack([stack[n] == label for n in hidden]) for stack in stacks]
        scores.append(dice(*masks) or 0.0)
    return float(np.mean(scores))


TASKS: dict[str, Callable[[Path, Path, int, Sequence[str]], Scores]] = {
    "abdomen": abdomen_scores,
    "tumour": tumour_scores,
    "hippocampus": hippocampus_scores,
}


def starts(weights: Path | None, options: Sequence[str]) -> dict[str, list[str]]:
    """Options of `finetune` for each column."""
    named = ["--checkpoint", str(weights)] if weights else []
    return {
        "starter": [*named, *options],
        "random": ["--weights", "random", *options],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--weights", type=Path, metavar="FILE", help="in place of the bundled ones")
    parser.add_argument("--starts", nargs="+", choices=("starter", "random"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    columns = starts(chosen.weights, chosen.options)
    wanted = chosen.starts or list(columns)
    figures: dict[str, Scores] = {}
    for name in wanted:
        figures[name] = {}
        for task in chosen.tasks:
            print(f"{task} from {name} …", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as temporary:
                scores = TASKS[task](chosen.data, Path(temporary), chosen.seed, columns[name])
            figures[name].update(scores)
            print(f"{scores}", file=sys.stderr, flush=True)
    rows: list[list[Cell]] = [
        [row, *(figures[name][row] for name in wanted)] for row in figures[wanted[0]]
    ]
    print(markdown(["DSC", *wanted], rows))
    if chosen.json:
        write_json(chosen.json, {"seed": chosen.seed, "dsc": figures})


if __name__ == "__main__":
    main()
