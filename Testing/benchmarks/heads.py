"""The heads side by side, from the same starter weights: DSC, time and memory.

    python -m Testing.benchmarks.heads [--heads mask_decoder convnet …] [--tasks abdomen …]
        [--seeds 0 1 2] [--quick] [--json FILE] [-- FINETUNE OPTIONS]

The real commands `finetune` (preset laptop, backbone starter, and the head) and `apply` run for
every head, task and seed:

* abdomen: ten structures of one CT, five slices each; DSC on the slices between that were not
  shown, as in `abdomen.py`, the mean over structures.
* hippocampus: one slice of each of five volumes; twenty other volumes whole, as in
  `hippocampus.py`; the mean over volumes of both parts as one, and of each.
* fetal_brain: five slices of one stack; two stacks in other orientations whole.
* pictures: five small pictures of a bright disk in noise, as the tests make them; twenty others.

How to read it: the mean over seeds, and in brackets the lowest and the highest. Seconds and memory
are those of `finetune`, its start included, and the largest of all runs for memory. A head for
which the preset's time limit comes before its steps made fewer steps, which the last column tells.
--quick makes eight steps with one seed and two unseen volumes, to see that all runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from SAMFineTuneLib.evaluation import dice
from SAMFineTuneLib.heads.names import HEAD_NAMES
from SAMFineTuneLib.volumes import read_labelmap, read_volume, write_labelmap
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import abdomen, hippocampus
from Testing.benchmarks.few_slices import evenly_spaced, keep_slices
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown, mean_and_range
from Testing.benchmarks.tune_and_apply import TunedRun, tune_and_apply
from Testing.support.listed_pictures import write_list, write_pair

_QUICK_STEPS, _QUICK_UNSEEN = 8, 2
_LEARNT_PICTURES, _PICTURE_SIDE = 5, 128


@dataclass(frozen=True)
class Trial:
    """One fine-tune: its scores by name, and what it cost."""

    scores: dict[str, float]
    run: TunedRun


def abdomen_trial(
    data: Path, folder: Path, seed: int, options: Sequence[str], unseen: int
) -> Trial:
    """Ten organs, on the slices that were not shown."""
    task = abdomen.Task.read(data, 5)
    few = folder / "few.nii.gz"
    write_labelmap(few, task.few())
    example = ("--volume", task.volume_path, "--segmentation", few, "--axis", abdomen.AXIS)
    run = tune_and_apply(example, [task.volume_path], folder, seed, options)
    found = abdomen.scores(task, run.segmentations[0], 3.0)
    return Trial({"abdomen": found["mean"]["dsc"]}, run)


def hippocampus_trial(
    data: Path, folder: Path, seed: int, options: Sequence[str], unseen: int
) -> Trial:
    """Twenty other volumes, every slice counted."""
    data = data / "hippocampus_mr"
    learnt, others = hippocampus.choose_volumes(data, 0)
    hippocampus.write_examples(learnt, data, "axial", folder)
    others = others[:unseen]
    images = [data / "images" / name for name in others]
    run = tune_and_apply(("--examples", folder / "examples.json"), images, folder, seed, options)
    volumes = [
        hippocampus.scores_of_volume(found, read_labelmap(data / "labels" / name), "axial")
        for found, name in zip(run.segmentations, others, strict=True)
    ]
    means = hippocampus.summary(volumes)
    names = {name: f"{name}, whole" for name in ("union", "anterior", "posterior")}
    return Trial({f"hippocampus, {name}": means[key]["mean"] for name, key in names.items()}, run)


def fetal_brain_trial(
    data: Path, folder: Path, seed: int, options: Sequence[str], unseen: int
) -> Trial:
    """Two other stacks of the same patient, in other orientations."""
    runs = [data / "fetal_brain_mr_oblique" / f"run{number}" for number in (1, 2, 3)]
    (learnt, labels), *others = [
        (Path(f"{run}.nii.gz"), Path(f"{run}_brain.nii.gz")) for run in runs
    ]
    truth, few = read_labelmap(labels), folder / "few.nii.gz"
    write_labelmap(few, keep_slices(truth, "axial", {1: evenly_spaced(truth, "axial", 1, 5)}))
    example = ("--volume", learnt, "--segmentation", few, "--axis", "axial")
    run = tune_and_apply(example, [image for image, _ in others], folder, seed, options)
    return Trial({"fetal brain": _mean_dice(run, [mask for _, mask in others])}, run)


def pictures_trial(
    data: Path, folder: Path, seed: int, options: Sequence[str], unseen: int
) -> Trial:
    """Other pictures of the same kind."""
    for number in range(_LEARNT_PICTURES):
        write_pair(folder, f"p{number}", side=_PICTURE_SIDE, seed=number)
    named = write_list(folder / "train.csv", [f"p{each}" for each in range(_LEARNT_PICTURES)])
    pairs = [
        write_pair(folder, f"unseen{number}", side=_PICTURE_SIDE, seed=100 + number)
        for number in range(unseen)
    ]
    images = [image for image, _ in pairs]
    run = tune_and_apply(("--list", named), images, folder, seed, options)
    return Trial({"pictures": _mean_dice(run, [mask for _, mask in pairs])}, run)


def _mean_dice(run: TunedRun, masks: Sequence[Path]) -> float:
    found = [
        dice(segmentation.array > 0, read_volume(mask).array > 0) or 0.0
        for segmentation, mask in zip(run.segmentations, masks, strict=True)
    ]
    return float(np.mean(found))


TASKS: dict[str, Callable[[Path, Path, int, Sequence[str], int], Trial]] = {
    "abdomen": abdomen_trial,
    "hippocampus": hippocampus_trial,
    "fetal_brain": fetal_brain_trial,
    "pictures": pictures_trial,
}


def report(trials: Mapping[str, Mapping[str, Sequence[Trial]]]) -> str:
    """One table a task, one row a head."""
    tables = []
    for task, by_head in trials.items():
        names = list(next(iter(by_head.values()))[0].scores)
        rows = [[head, *_row(found, names)] for head, found in by_head.items()]
        headings = [task, *names, "seconds", "peak MiB", "steps"]
        tables.append(markdown(headings, rows, digits=0))
    return "\n\n".join(tables)


def _row(found: Sequence[Trial], names: Sequence[str]) -> list[Cell]:
    costs = [each.run.tuned for each in found]
    steps = [each.result["training"]["steps"] for each in costs]
    return [
        *(mean_and_range([each.scores[name] for each in found]) for name in names),
        float(np.mean([each.seconds for each in costs])),
        round(max(each.peak_bytes for each in costs) / 1024**2),
        f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}",
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--heads", nargs="+", choices=HEAD_NAMES, default=list(HEAD_NAMES))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that all runs")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    seeds, unseen, more = chosen.seeds, hippocampus.UNSEEN, list(chosen.options)
    if chosen.quick:
        seeds, unseen = seeds[:1], _QUICK_UNSEEN
        more = ["--steps", str(_QUICK_STEPS), *more]
    trials: dict[str, dict[str, list[Trial]]] = {task: {} for task in chosen.tasks}
    for task in chosen.tasks:
        for head in chosen.heads:
            for seed in seeds:
                print(f"{task}, {head}, seed {seed} …", file=sys.stderr, flush=True)
                options = ["--head", head, *more]
                with tempfile.TemporaryDirectory() as name:
                    trial = TASKS[task](chosen.data, Path(name), seed, options, unseen)
                trials[task].setdefault(head, []).append(trial)
            # So that a run that is broken off has told what it found.
            print(report({task: trials[task]}), file=sys.stderr, flush=True)
    print(report(trials))
    if chosen.json:
        write_json(chosen.json, _figures(trials))


def _figures(trials: Mapping[str, Mapping[str, Sequence[Trial]]]) -> dict[str, Any]:
    return {
        task: {
            head: [{"scores": each.scores, "fine-tune": each.run.to_json()} for each in found]
            for head, found in by_head.items()
        }
        for task, by_head in trials.items()
    }


if __name__ == "__main__":
    main()
