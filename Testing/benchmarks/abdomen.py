"""Ten structures of one CT from five labelled slices each: time, memory, DSC and NSD.

    python -m Testing.benchmarks.abdomen [--json FILE] [--sheet PNG] [--unet] [-- FINETUNE OPTIONS]

Of each structure in `ct_abdomen_3mm` the five slices evenly spaced from its first to its last one
are kept and the rest of the labelmap is zeroed, all structures in one labelmap, as a clinician
would draw them. The real commands `finetune` (preset laptop, backbone starter) and `apply` run on
it, each in its own process tree. DSC and NSD of a structure count the axial slices between its
first and last one that were not shown (the tolerance is one voxel, 3 mm). Each structure is
measured on its own slices, which are not the same for all. Beside it stand:

* with drawn slices: the same model, told which slices are drawn (`apply --drawn`).
* interpolation: shape interpolation between the same slices, which looks at no image and knows
  where the structure begins and ends; hard to beat where slices are close to each other.
* U-Net (with --unet): one trained from scratch on the same slices for as long as `finetune` took.

Options behind `--` go to `finetune`, such as `-- --steps 20`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from SAMFineTuneLib.evaluation import evaluate
from SAMFineTuneLib.geometry.axes import array_axis
from SAMFineTuneLib.geometry.shape_interpolation import interpolate
from SAMFineTuneLib.pictures.contact_sheet import SlicePanel, write_contact_sheet
from SAMFineTuneLib.slices.intensity import find_normalisation, sample_voxels
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Labelmap, Volume, read_labelmap, read_volume, write_labelmap
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks.few_slices import evenly_spaced, keep_slices, labelled_range
from Testing.benchmarks.shared_images import add_data_option
from Testing.benchmarks.table import Cell, markdown
from Testing.benchmarks.tune_and_apply import tune_and_apply
from Testing.benchmarks.unet_baseline import DEFAULT_SIZE, train_unet
from Testing.support.job_records import example_of

AXIS = "axial"
STRUCTURES = {
    1: "spleen",
    2: "right kidney",
    3: "left kidney",
    5: "liver",
    6: "stomach",
    20: "colon",
    52: "aorta",
    63: "inferior vena cava",
    86: "left autochthonous muscles",
    87: "right autochthonous muscles",
}


@dataclass(frozen=True)
class Task:
    """The CT, its true labels, and the slices of each that are shown."""

    volume_path: Path
    volume: Volume
    truth: Labelmap
    shown: Mapping[int, Sequence[int]]

    @classmethod
    def read(cls, data: Path, count: int) -> Task:
        """The shared CT, with `count` slices a structure."""
        folder = data / "ct_abdomen_3mm"
        truth = read_labelmap(folder / "organs.nii.gz")
        shown = {label: evenly_spaced(truth, AXIS, label, count) for label in STRUCTURES}
        path = folder / "ct.nii.gz"
        return cls(path, read_volume(path), truth, shown)

    def few(self) -> Labelmap:
        """What the fine-tune sees of the labels."""
        return keep_slices(self.truth, AXIS, self.shown)

    def hidden(self, label: int) -> list[int]:
        """Slices on which a structure is measured."""
        first, last = labelled_range(self.truth, AXIS, [label])
        return [number for number in range(first, last + 1) if number not in self.shown[label]]

    def interpolated(self) -> Labelmap:
        """Shape interpolation between the shown slices."""
        geometry = self.truth.geometry
        array = interpolate(
            self.few().array, array_axis(geometry, AXIS), self.shown, geometry.spacing[::-1]
        )
        return Labelmap(array, geometry)


def scores(task: Task, prediction: Labelmap, tolerance_mm: float) -> dict[str, Any]:
    """DSC and NSD by label on the hidden slices, and their means."""
    found = {}
    for label in STRUCTURES:
        report = evaluate(
            prediction, task.truth, [label], task.hidden(label), AXIS, tolerance_mm=tolerance_mm
        )
        found[str(label)] = {"dsc": report.labels[0].dsc, "nsd": report.labels[0].nsd}
    means = {
        key: float(np.mean([each[key] for each in found.values() if each[key] is not None]))
        for key in ("dsc", "nsd")
    }
    return {"labels": found, "mean": means}


def draw(task: Task, prediction: Labelmap, path: Path, heading: str) -> None:
    """Every axial slice with true and predicted outlines, anterior up, patient's right left."""
    images, true, found = (
        SliceStack.of(each, AXIS) for each in (task.volume, task.truth, prediction)
    )
    sample = sample_voxels(task.volume)
    window = find_normalisation([sample]).window_for(sample)
    wanted = [*STRUCTURES]
    rows, columns = images.pixel_spacing
    panels = [
        SlicePanel(
            f"slice {number}",
            window.apply(images[number]),
            np.where(np.isin(true[number], wanted), true[number], 0),
            found[number],
            labelled=any(number in numbers for numbers in task.shown.values()),
            aspect=rows / columns,
        )
        for number in range(len(images))
    ]
    write_contact_sheet(path, panels, heading)


def report(task: Task, methods: Mapping[str, dict[str, Any]]) -> str:
    """One row a structure, DSC and NSD of each method."""
    headings = ["structure", "hidden slices"]
    headings += [f"{measure} {name}" for measure in ("DSC", "NSD") for name in methods]
    rows: list[list[Cell]] = []
    for label, name in STRUCTURES.items():
        scored = [found["labels"][str(label)] for found in methods.values()]
        rows.append([f"{label} {name}", len(task.hidden(label)), *_cells(scored)])
    means = [found["mean"] for found in methods.values()]
    return markdown(headings, [*rows, ["mean", None, *_cells(means)]])


def _cells(scored: Sequence[Mapping[str, float | None]]) -> list[float | None]:
    """The DSC of every method, then the NSD of every method."""
    return [each[measure] for measure in ("dsc", "nsd") for each in scored]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw every slice here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slices", type=int, default=5, help="shown of each structure")
    parser.add_argument("--tolerance", type=float, default=3.0, help="of the NSD, mm")
    parser.add_argument("--unet", action="store_true", help="train a U-Net for the same time")
    parser.add_argument("--unet-size", type=int, default=DEFAULT_SIZE, metavar="PIXELS")
    parser.add_argument("options", nargs="*", help="options for finetune, behind --")
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    task = Task.read(chosen.data, chosen.slices)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = folder / "few.nii.gz"
        write_labelmap(few, task.few())
        example = ("--volume", task.volume_path, "--segmentation", few, "--axis", AXIS)
        run = tune_and_apply(
            example, [task.volume_path], folder, chosen.seed, chosen.options, drawn=[few]
        )
        segmentations = {
            "fine-tuned": run.segmentations[0],
            "with drawn slices": run.with_drawn[0],
            "interpolation": task.interpolated(),
        }
        unet = None
        if chosen.unet:
            print(f"U-Net for {run.tuned.seconds:.0f} s …", file=sys.stderr, flush=True)
            source = example_of(task.volume_path, few, axis=AXIS)
            trained = train_unet(
                [source], run.tuned.seconds, chosen.unet_size, chosen.seed, folder / "unet"
            )
            unet = trained.description
            segmentations["U-Net"] = trained.segment(task.volume)
    methods = {name: scores(task, found, chosen.tolerance) for name, found in segmentations.items()}
    if chosen.sheet:
        mean = methods["fine-tuned"]["mean"]["dsc"]
        heading = f"mean DSC on hidden slices {mean:.3f}"
        draw(task, segmentations["fine-tuned"], chosen.sheet, heading)
    print(f"{report(task, methods)}\n\n{run.cost_table()}")
    if unet:
        print(f"\nU-Net: {unet}")
    if chosen.json:
        figures = {
            "seed": chosen.seed,
            "tolerance_mm": chosen.tolerance,
            "shown": {str(label): numbers for label, numbers in task.shown.items()},
            "methods": methods,
            "fine-tune": run.to_json(),
            "unet": unet,
        }
        write_json(chosen.json, figures)


if __name__ == "__main__":
    main()
