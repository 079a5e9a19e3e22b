"""What looking at a volume as a whole is worth: neighbours that vote, and stray regions dropped.

    python -m Testing.benchmarks.volume_as_one [--tasks hippocampus …] [--seeds 0 1 2]
        [--models FOLDER] [--json FILE] [-- FINETUNE OPTIONS]

The real command `finetune` (preset laptop, backbone starter) makes a model for every task and seed;
with --models they are kept in a folder, and those that lie there are used. Each model segments its
volumes four times: slice by slice, with the votes of the neighbouring slices
(`prediction/neighbour_smoothing.py`), without stray regions (`prediction/stray_regions.py`), and
with both, which is what `apply` does by default.

* hippocampus: one slice of each of five volumes; twenty other volumes whole, as in
  `hippocampus.py`; the mean of the anterior and the posterior part and of both as one.
* abdomen: ten structures of one CT of 3 mm, five slices each; DSC on the slices between that were
  not shown, as in `abdomen.py`. "told": the same with the drawn slices told.
* sarcoma: five patients' whole volumes; three others, 3.3 mm slices.
* fetal brain: five slices of one stack; two stacks in other orientations, 3.3 mm slices.

How to read it: mean DSC over seeds and volumes, and the share of the truly empty slices on which
something was found.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.evaluation import dice
from SAMFineTuneLib.jobs.schema import ApplyJob
from SAMFineTuneLib.models.model_file import load_model
from SAMFineTuneLib.prediction.between_slices import keep_known
from SAMFineTuneLib.prediction.stray_regions import drop_stray_regions
from SAMFineTuneLib.prediction.volume_prediction import predict_volume
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.tasks.volume_segmentation import Case, VolumeSegmentation
from SAMFineTuneLib.volumes import Labelmap, read_labelmap, write_labelmap
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import abdomen, hippocampus
from Testing.benchmarks.few_slices import evenly_spaced, keep_slices
from Testing.benchmarks.process_cost import command, run_command
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown
from Testing.support.job_records import example_of

WAYS = ("slice by slice", "neighbours vote", "no stray regions", "both")
_AXIS = "axial"
_BATCH = 4


@dataclass(frozen=True)
class Score:
    """DSC, and the share of empty slices on which something was found, if there are any."""

    dsc: float
    empty: float | None


Measure = Callable[[Labelmap], Score]


@dataclass(frozen=True)
class Measured:
    """A volume to segment: what its scores are called, and how they are computed.

    Attributes:
        title: of a row of the table.
        volume: its file.
        measure: of a segmentation.
        drawn: labels on the slices that the model is told of.
    """

    title: str
    volume: Path
    measure: Measure
    drawn: Path | None = None


@dataclass(frozen=True)
class Task:
    """The options of `finetune` that name the examples, and the volumes to segment."""

    examples: Sequence[str | Path]
    volumes: Sequence[Measured]


def _empty_found(found: Labelmap, truth: Labelmap) -> float | None:
    stacks = SliceStack.of(found, _AXIS), SliceStack.of(truth, _AXIS)
    wrong = [bool(stacks[0][n].any()) for n in range(len(stacks[1])) if not stacks[1][n].any()]
    return float(np.mean(wrong)) if wrong else None


def _hippocampus(data: Path, folder: Path) -> Task:
    data = data / "hippocampus_mr"
    learnt, unseen = hippocampus.choose_volumes(data, 0)
    hippocampus.write_examples(learnt, data, _AXIS, folder)
    measured = []
    for name in unseen:
        truth = read_labelmap(data / "labels" / name)

        def measure(found: Labelmap, truth: Labelmap = truth) -> Score:
            scores = hippocampus.scores_of_volume(found, truth, _AXIS)
            whole = [scores[f"{part}, whole"] or 0.0 for part in hippocampus.STRUCTURES]
            return Score(float(np.mean(whole)), _empty_found(found, truth))

        measured.append(Measured("hippocampus", data / "images" / name, measure))
    return Task(("--examples", folder / "examples.json"), measured)


def _abdomen(data: Path, folder: Path) -> Task:
    task = abdomen.Task.read(data, 5)
    few = folder / "few.nii.gz"
    write_labelmap(few, task.few())

    def measure(found: Labelmap) -> Score:
        return Score(abdomen.scores(task, found, 3.0)["mean"]["dsc"], None)

    return Task(
        ("--volume", task.volume_path, "--segmentation", few, "--axis", abdomen.AXIS),
        [
            Measured("abdomen", task.volume_path, measure),
            Measured("abdomen, told", task.volume_path, measure, few),
        ],
    )


def _one_structure(title: str, volume: Path, labels: Path) -> Measured:
    truth = read_labelmap(labels)

    def mask(labelmap: Labelmap) -> NDArray[np.bool_]:
        return labelmap.array > 0

    def measure(found: Labelmap) -> Score:
        return Score(dice(mask(found), mask(truth)) or 0.0, _empty_found(found, truth))

    return Measured(title, volume, measure)


def _sarcoma(data: Path, folder: Path) -> Task:
    paths = [data / "sarcoma_mr" / f"STS_{number:03}.nii.gz" for number in range(1, 9)]
    pairs = [(path, path.with_name(path.name.replace(".", "_tumour.", 1))) for path in paths]
    examples = [
        {"volume": str(image), "segmentation": str(labels), "axis": _AXIS}
        for image, labels in pairs[:5]
    ]
    write_json(folder / "sarcomas.json", examples)
    measured = [_one_structure("sarcoma", *pair) for pair in pairs[5:]]
    return Task(("--examples", folder / "sarcomas.json"), measured)


def _fetal_brain(data: Path, folder: Path) -> Task:
    runs = [data / "fetal_brain_mr_oblique" / f"run{number}" for number in (1, 2, 3)]
    pairs = [(Path(f"{run}.nii.gz"), Path(f"{run}_brain.nii.gz")) for run in runs]
    truth = read_labelmap(pairs[0][1])
    few = folder / "few.nii.gz"
    write_labelmap(few, keep_slices(truth, _AXIS, {1: evenly_spaced(truth, _AXIS, 1, 5)}))
    return Task(
        ("--volume", pairs[0][0], "--segmentation", few, "--axis", _AXIS),
        [_one_structure("fetal brain", *pair) for pair in pairs[1:]],
    )


TASKS: dict[str, Callable[[Path, Path], Task]] = {
    "hippocampus": _hippocampus,
    "abdomen": _abdomen,
    "sarcoma": _sarcoma,
    "fetal_brain": _fetal_brain,
}


def tuned(task: Task, model: Path, folder: Path, seed: int, options: Sequence[str]) -> Path:
    """The tuned model, made unless it lies there."""
    if not model.is_file():
        words = ("finetune", *task.examples, "--output", model, "--job", folder / "job")
        named = ("--preset", "laptop", "--backbone", "starter", "--seed", str(seed))
        run_command(command(*words, *named, *options), folder)
    return model


def scored(task: Task, model: Path) -> Iterator[tuple[str, dict[str, Score]]]:
    """The title of each volume, and its score by way."""
    segmenter, card = load_model(model, lambda card: find_weights(card.backbone, None))
    for each in task.volumes:
        drawn = (
            [example_of(each.volume, each.drawn, axis=_AXIS, empty="none")] if each.drawn else []
        )
        job = ApplyJob(model=model, volumes=[each.volume], output=Path("out"), drawn=drawn)
        segmentation = VolumeSegmentation(job, segmenter, card, print, print)
        case = Case(each.volume)
        volume = segmentation.read(case)
        known = segmentation.known(case, volume)
        scores = {}
        for smooth, (plain, cleared) in ((False, WAYS[::2]), (True, WAYS[1::2])):
            prediction = predict_volume(segmenter, card, volume, _BATCH, known=known, smooth=smooth)
            scores[plain] = each.measure(prediction.labelmap)
            copy = replace(prediction.labelmap, array=prediction.labelmap.array.copy())
            stack = SliceStack.of(copy, prediction.axis)
            drop_stray_regions(stack, card.shapes, known)
            keep_known(stack, known)
            scores[cleared] = each.measure(copy)
        yield each.title, scores


def report(scores: Mapping[str, Sequence[Mapping[str, Score]]]) -> str:
    """One row a title; the DSC of each way, then the share of empty slices of each."""
    rows: list[list[Cell]] = []
    for title, volumes in scores.items():
        dsc = [float(np.mean([each[way].dsc for each in volumes])) for way in WAYS]
        rows.append([title, len(volumes), *dsc, *(_mean_empty(volumes, way) for way in WAYS)])
    headings = [f"{measure} {way}" for measure in ("DSC", "empty") for way in WAYS]
    return markdown(["", "volumes", *headings], rows)


def _mean_empty(volumes: Sequence[Mapping[str, Score]], way: str) -> float | None:
    shares = [share for each in volumes if (share := each[way].empty) is not None]
    return float(np.mean(shares)) if shares else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep the models here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    found: dict[str, list[dict[str, Score]]] = {}
    kept = chosen.models
    with tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as models:
        Path(models).mkdir(parents=True, exist_ok=True)
        for name in chosen.tasks:
            for seed in chosen.seeds:
                print(f"{name}, seed {seed} …", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory() as temporary:
                    folder = Path(temporary)
                    task = TASKS[name](chosen.data, folder)
                    model = Path(models) / f"{name}_{seed}.safetensors"
                    tuned(task, model, folder, seed, chosen.options)
                    for title, scores in scored(task, model):
                        found.setdefault(title, []).append(scores)
                print(report(found), file=sys.stderr, flush=True)
    print(report(found))
    if chosen.json:
        figures = {
            title: [{way: vars(score) for way, score in each.items()} for each in volumes]
            for title, volumes in found.items()
        }
        write_json(chosen.json, figures)


if __name__ == "__main__":
    main()
