"""Between drawn slices: shape and image alone, the model alone, and all of them together.

    python -m Testing.benchmarks.drawn_slices [--tasks ct ct_thick ct_sparse hippocampus] [--seed 0]
        [--unseen 5] [--json FILE] [-- FINETUNE OPTIONS]

The real command `finetune` learns (preset laptop, backbone starter), and the volume is predicted as
`apply` does, without and with what is drawn:

* ct: ten organs of a CT of 3 mm, five drawn slices each, from which the model has learnt.
* ct_thick: the same with every third slice, 9 mm apart.
* ct_sparse: that model, told of three drawn slices of each organ only.
* hippocampus: volumes that the model, which learnt from one slice of each of five others, has not
  seen; three drawn slices of each part.

How to read it: the mean over structures of the DSC on the slices between the first and the last
drawn one that are not drawn. "shape" is shape interpolation, "random walk" what the edges of the
image make of it, without any network. The last column tells in how many structures the model with
drawn slices is worse by more than 0.01 than the model alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.evaluation import dice
from SAMFineTuneLib.geometry.shape_interpolation import shape_between, signed_distance
from SAMFineTuneLib.jobs.schema import ApplyJob
from SAMFineTuneLib.models.model_file import load_model
from SAMFineTuneLib.prediction.walked_gap import CroppedDistance, walked_masks
from SAMFineTuneLib.slices.intensity import find_normalisation, sample_voxels
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.tasks.volume_segmentation import Case, VolumeSegmentation
from SAMFineTuneLib.volumes import Labelmap, Volume, read_labelmap, write_labelmap
from SAMFineTuneLib.weights.choice import find_weights
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import abdomen, hippocampus
from Testing.benchmarks.few_slices import evenly_spaced, keep_slices
from Testing.benchmarks.process_cost import command, run_command
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown
from Testing.support.job_records import example_of

_AXIS = "axial"
_WAYS = ("shape", "random walk", "model", "model with drawn slices")
_WORSE = 0.01
_STEP = 3

Masks = dict[int, NDArray[np.bool_]]


@dataclass(frozen=True)
class Drawn:
    """A volume with its true labels, and how many slices of each structure are drawn."""

    volume: Path
    labels: Path
    structures: Sequence[int]
    slices: int


@dataclass(frozen=True)
class Task:
    """What is learnt from, and what is measured."""

    examples: Sequence[str | Path]
    measured: Sequence[Drawn]


def _abdomen(data: Path, folder: Path, step: int, told: int) -> Task:
    place, paths = data / "ct_abdomen_3mm", []
    for name in ("ct", "organs"):
        image = sitk.ReadImage(str(place / f"{name}.nii.gz"))
        paths.append(folder / f"{name}_{step}.nii.gz")
        sitk.WriteImage(image[:, :, step // 2 :: step], str(paths[-1]))
    volume, labels = paths
    few = folder / f"few_{step}.nii.gz"
    write_labelmap(few, _few(read_labelmap(labels), list(abdomen.STRUCTURES), 5)[0])
    examples = ("--volume", volume, "--segmentation", few, "--axis", _AXIS)
    return Task(examples, [Drawn(volume, labels, list(abdomen.STRUCTURES), told)])


def _hippocampus(data: Path, folder: Path, unseen: int) -> Task:
    place = data / "hippocampus_mr"
    learnt, others = hippocampus.choose_volumes(place, 0)
    hippocampus.write_examples(learnt, place, _AXIS, folder)
    measured = [
        Drawn(place / "images" / name, place / "labels" / name, (1, 2), 3)
        for name in others[:unseen]
    ]
    return Task(("--examples", folder / "examples.json"), measured)


TASKS: dict[str, Callable[[Path, Path, int], Task]] = {
    "ct": lambda data, folder, unseen: _abdomen(data, folder, 1, 5),
    "ct_thick": lambda data, folder, unseen: _abdomen(data, folder, _STEP, 5),
    "ct_sparse": lambda data, folder, unseen: _abdomen(data, folder, _STEP, 3),
    "hippocampus": _hippocampus,
}


def _few(
    truth: Labelmap, structures: Sequence[int], count: int
) -> tuple[Labelmap, dict[int, list[int]]]:
    kept = {each: evenly_spaced(truth, _AXIS, each, count) for each in structures}
    return keep_slices(truth, _AXIS, kept), kept


def without_network(
    volume: Volume, truth: SliceStack, label: int, drawn: Sequence[int]
) -> tuple[Masks, Masks]:
    """Shape interpolation, and the random walk after it, on the slices between drawn ones."""
    sample = sample_voxels(volume)
    window = find_normalisation([sample]).window_for(sample)
    stack = SliceStack.of(volume, _AXIS)
    spacing = float(volume.geometry.spacing[::-1][stack.axis])
    shapes: Masks = {}
    walked: Masks = {}
    known = {each: signed_distance(truth[each] == label, stack.pixel_spacing) for each in drawn}
    for first, last in pairwise(drawn):
        ends = {each: known[each] for each in (first, last)}
        outlines = {}
        for number in range(first, last + 1):
            distance = ends[number] if number in ends else shape_between(ends, number)
            doubt = min(number - first, last - number) * spacing
            outlines[number] = CroppedDistance.of(distance, doubt, stack.pixel_spacing)
            shapes[number] = distance > 0
        walked |= walked_masks(
            outlines,
            lambda number: window.apply(stack[number]),
            stack.pixel_spacing,
            spacing,
            stack.slice_shape,
        )
    return shapes, walked


def scores(drawn: Drawn, model: Path, folder: Path) -> list[list[float]]:
    """A row for each structure, with the DSC of each way."""
    truth = read_labelmap(drawn.labels)
    few, kept = _few(truth, drawn.structures, drawn.slices)
    path = folder / "drawn.nii.gz"
    write_labelmap(path, few)
    segmenter, card = load_model(model, lambda card: find_weights(card.backbone, None))
    example = example_of(drawn.volume, path, axis=_AXIS, empty="none")
    job = ApplyJob(model=model, volumes=[drawn.volume], output=Path("out"), drawn=[example])
    segmentation = VolumeSegmentation(job, segmenter, card, print, print)
    case = Case(drawn.volume)
    volume = segmentation.read(case)
    found = [
        SliceStack.of(segmentation.predict(volume, known, False, lambda *_: None).labelmap, _AXIS)
        for known in ([], segmentation.known(case, volume))
    ]
    true, rows = SliceStack.of(truth, _AXIS), []
    for label, numbers in kept.items():
        between = [
            each
            for each in range(numbers[0], numbers[-1])
            if each not in numbers and (true[each] == label).any()
        ]
        if not between:
            continue
        masks = np.stack([true[each] == label for each in between])
        ways: list[Mapping[int, NDArray[np.bool_]]] = [
            *without_network(volume, true, label, numbers),
            *({each: stack[each] == label for each in between} for stack in found),
        ]
        rows.append([dice(np.stack([way[n] for n in between]), masks) or 0.0 for way in ways])
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unseen", type=int, default=5, metavar="N", help="hippocampi")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep models here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = chosen.models or folder
        models.mkdir(parents=True, exist_ok=True)
        for name in chosen.tasks:
            task = TASKS[name](chosen.data, folder, chosen.unseen)
            # Both thick tasks have the same model.
            model = models / f"{name.replace('sparse', 'thick')}_{chosen.seed}.safetensors"
            if not model.is_file():
                words = ("finetune", *task.examples, "--output", model, "--job", folder / name)
                named = ("--preset", "laptop", "--backbone", "starter", "--seed", str(chosen.seed))
                run_command(command(*words, *named, *chosen.options), folder)
            found[name] = [row for each in task.measured for row in scores(each, model, folder)]
    rows: list[list[Cell]] = []
    for name, scored in found.items():
        worse = sum(told < alone - _WORSE for *_, alone, told in scored)
        rows.append([name, *np.mean(scored, 0).tolist(), f"{worse} of {len(scored)}"])
    print(markdown(["DSC", *_WAYS, "worse"], rows))
    if chosen.json:
        write_json(chosen.json, {name: dict(enumerate(each)) for name, each in found.items()})


if __name__ == "__main__":
    main()
