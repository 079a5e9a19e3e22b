"""Whether uncertainty means something: calibration, and whether it tells which slices are wrong.

    python -m Testing.benchmarks.uncertainty [--tasks abdomen hippocampus volumes] [--seeds 0 1 2]
        [--slices 5] [--unseen 20] [--quick] [--json FILE] [-- FINETUNE OPTIONS]

The real command `finetune` (preset laptop, backbone starter) runs, and its model predicts slices
that it has not seen:

* abdomen: five slices of a CT with all of ten organs on them; the other slices.
* hippocampus: one slice of each of five volumes, as in `hippocampus.py`; twenty other volumes.
* volumes: the same five volumes labelled whole, so that one of them is held out; the same twenty.

Every model is measured at several temperatures: 1, as the network is; that of its card, which is 1
where fewer than eight labelled slices were held out; the one measured on what was held out, however
little; and the one that is best for the slices measured on, which nobody can know.

How to read it: means over seeds, and in brackets the lowest and the highest. "ECE" is the expected
calibration error of the likeliest class over all voxels, "claimed ECE" that over voxels where a
structure is or has a probability of at least 0.01: empty background hardly counts there. The rank
correlation (Spearman) is that of a slice's uncertainty with 1 - DSC of all its structures together,
over slices that show or are given a structure; "in a volume" is the mean over volumes of that among
the slices of one, as one that labels a volume sees them. --quick makes a few steps with one seed
and two unseen volumes, to see that all runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.evaluation.calibration import (
    CLAIMED,
    EVERYWHERE,
    CalibrationBins,
    claimed_dsc,
    claimed_voxels,
    rank_correlation,
)
from SAMFineTuneLib.evaluation.known_mean import mean_of_known
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.models.model_file import ModelCard, load_model
from SAMFineTuneLib.prediction.slice_prediction import class_probabilities
from SAMFineTuneLib.prediction.uncertainty import at_temperature, slice_uncertainty
from SAMFineTuneLib.prediction.volume_prediction import slice_axis
from SAMFineTuneLib.slices.intensity import sample_voxels
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.training.temperature import TemperatureSample
from SAMFineTuneLib.volumes import Labelmap, read_labelmap, read_volume
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import hippocampus
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown, mean_and_range
from Testing.benchmarks.tune_and_apply import tune
from Testing.benchmarks.whole_slices import VOLUMES

_QUICK_STEPS, _QUICK_UNSEEN = 4, 2
_MEASURES = {
    EVERYWHERE: "ECE",
    CLAIMED: "claimed ECE",
    "rank": "rank correlation",
    "rank_in_volume": "in a volume",
}

Scores = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class PredictedSlice:
    """What a model makes of a slice that it has not seen.

    Attributes:
        volume: number of its volume.
        probabilities: (classes, rows, columns) of the network as it is.
        truth: (rows, columns) class numbers.
    """

    volume: int
    probabilities: Tensor
    truth: NDArray[np.int64]


@dataclass(frozen=True)
class Unseen:
    """A volume and the slices of it that are predicted; None for all."""

    image: Path
    truth: Labelmap
    slices: Sequence[int] | None = None


@dataclass(frozen=True)
class Task:
    """What is learnt from, as options of `finetune`, and what is predicted."""

    examples: Sequence[str | Path]
    unseen: Sequence[Unseen]


def _abdomen(data: Path, folder: Path, count: int, unseen: int) -> Task:
    volume = VOLUMES["abdomen"](data, 0)
    shown = volume.evenly_spaced(count)
    others = [number for number in volume.extent if number not in shown]
    example = volume.write_example(folder, shown)
    return Task(example, [Unseen(volume.image, volume.truth, others)])


def _hippocampus(data: Path, folder: Path, count: int, unseen: int) -> Task:
    learnt, others = _hippocampi(data, unseen)
    hippocampus.write_examples(learnt, data / "hippocampus_mr", "axial", folder)
    return Task(("--examples", folder / "examples.json"), others)


def _volumes(data: Path, folder: Path, count: int, unseen: int) -> Task:
    learnt, others = _hippocampi(data, unseen)
    source = data / "hippocampus_mr"
    examples = [
        {
            "volume": str(source / "images" / name),
            "segmentation": str(source / "labels" / name),
            "axis": "axial",
        }
        for name in learnt
    ]
    write_json(folder / "examples.json", examples)
    return Task(("--examples", folder / "examples.json"), others)


def _hippocampi(data: Path, unseen: int) -> tuple[list[str], list[Unseen]]:
    source = data / "hippocampus_mr"
    learnt, others = hippocampus.choose_volumes(source, 0)
    return learnt, [
        Unseen(source / "images" / name, read_labelmap(source / "labels" / name))
        for name in others[:unseen]
    ]


TASKS: dict[str, Callable[[Path, Path, int, int], Task]] = {
    "abdomen": _abdomen,
    "hippocampus": _hippocampus,
    "volumes": _volumes,
}


def predicted_slices(
    segmenter: AutomaticSegmenter, card: ModelCard, unseen: Sequence[Unseen]
) -> Iterator[PredictedSlice]:
    """Predicts slices as `apply --no-tidy` does, before it takes the likeliest class."""
    values = np.array([0, *(label.value for label in card.labels)])
    for index, each in enumerate(unseen):
        volume = read_volume(each.image)
        axis = slice_axis(card, volume)
        stack, true = SliceStack.of(volume, axis), SliceStack.of(each.truth, axis)
        window = card.normalisation.window_for(sample_voxels(volume))
        for number in range(len(stack)) if each.slices is None else each.slices:
            image = window.apply(stack[number])
            found = class_probabilities(segmenter, [image], window, stack.pixel_spacing)[0].cpu()
            classes = (true[number][..., None] == values).argmax(-1)
            yield PredictedSlice(index, found, classes)


def best_temperature(slices: Sequence[PredictedSlice]) -> float:
    """The temperature at which the true classes of these slices are likeliest."""
    sample = TemperatureSample(len(slices))
    for each in slices:
        known = np.ones(len(each.probabilities), bool)
        image = np.zeros(each.truth.shape, np.float16)
        # Of a labelled slice the sample looks at the target and at what is known alone.
        window: Any = None
        labelled = LabelledSlice(image, each.truth, known, window, (1.0, 1.0), each.volume, 0)
        sample.add(labelled, each.probabilities)
    return sample.best_temperature()


def scores_at(temperature: float, slices: Sequence[PredictedSlice]) -> Scores:
    """Calibration errors and rank correlations at a temperature."""
    everywhere, claimed = CalibrationBins(), CalibrationBins()
    pairs: dict[int, list[tuple[float, float]]] = {}
    for each in slices:
        tempered = at_temperature(each.probabilities, temperature)
        found = tempered.numpy()
        everywhere.add(found, each.truth)
        # The same voxels at every temperature.
        claimed.add(found, each.truth, claimed_voxels(each.probabilities.numpy(), each.truth))
        dsc = claimed_dsc(each.probabilities.argmax(0).numpy(), each.truth)
        if dsc is not None:
            doubt = slice_uncertainty(tempered[None], each.probabilities[None])[0]
            pairs.setdefault(each.volume, []).append((doubt, 1 - dsc))
    of_all = [pair for of_volume in pairs.values() for pair in of_volume]
    return {
        "temperature": temperature,
        EVERYWHERE: everywhere.error,
        CLAIMED: claimed.error,
        "rank": _correlation(of_all),
        "rank_in_volume": mean_of_known(_correlation(each) for each in pairs.values()),
    }


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    return rank_correlation([doubt for doubt, _ in pairs], [wrong for _, wrong in pairs])


@dataclass(frozen=True)
class Trial:
    """One fine-tune: its scores at each temperature, and what it cost."""

    at: dict[str, Scores]
    dsc: float | None
    held_out: int
    seconds: float


def trial(task: Task, folder: Path, seed: int, options: Sequence[str]) -> Trial:
    """Fine-tunes, predicts and measures."""
    model = folder / "model.safetensors"
    tuned = tune(task.examples, model, folder, seed, options)
    segmenter, card = load_model(model, lambda card: find_weights(card.backbone, None))
    with torch.inference_mode():
        slices = list(predicted_slices(segmenter, card, task.unseen))
        temperatures = {
            "1": 1.0,
            "of the card": card.temperature,
            "of what was held out": card.metrics.get("held_out_temperature") or 1.0,
            "best here": best_temperature(slices),
        }
        at = {name: scores_at(value, slices) for name, value in temperatures.items()}
    right = [claimed_dsc(each.probabilities.argmax(0).numpy(), each.truth) for each in slices]
    held_out = int(card.metrics.get("held_out_slices", 0))
    return Trial(at, mean_of_known(right), held_out, tuned.seconds)


def report(task: str, trials: Sequence[Trial]) -> str:
    """One row a temperature."""
    rows: list[list[Cell]] = []
    for name in trials[0].at:
        found = [each.at[name] for each in trials]
        measures = ("temperature", *_MEASURES)
        rows.append([name, *(_mean([each[measure] for each in found]) for measure in measures)])
    return markdown([f"{task}: temperature", "value", *_MEASURES.values()], rows)


def _mean(values: Sequence[float | None]) -> str | None:
    known = [value for value in values if value is not None]
    return mean_and_range(known) if known else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--slices", type=int, default=5, metavar="N", help="shown of the CT")
    parser.add_argument("--unseen", type=int, default=hippocampus.UNSEEN, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that all runs")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    seeds, unseen, options = chosen.seeds, chosen.unseen, list(chosen.options)
    if chosen.quick:
        seeds, unseen = seeds[:1], _QUICK_UNSEEN
        options = ["--steps", str(_QUICK_STEPS), *options]
    trials: dict[str, list[Trial]] = {}
    for name in chosen.tasks:
        for seed in seeds:
            print(f"{name}, seed {seed} …", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                task = TASKS[name](chosen.data, folder, chosen.slices, unseen)
                found = trial(task, folder, seed, options)
            trials.setdefault(name, []).append(found)
            print(f"{found}", file=sys.stderr, flush=True)
            # So that a run that is broken off has told what it found.
            if chosen.json:
                write_json(chosen.json, _to_json(trials))
        print(f"{report(name, trials[name])}\n", flush=True)


def _to_json(trials: Mapping[str, Sequence[Trial]]) -> dict[str, Any]:
    return {task: [vars(each) for each in found] for task, found in trials.items()}


if __name__ == "__main__":
    main()
