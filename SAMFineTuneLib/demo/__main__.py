"""`python -m SAMFineTuneLib.demo`: label five slices, fine-tune, segment, measure, draw."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from SAMFineTuneLib.demo.sample_head import VENTRICLES, SampleHead, load_sample_head, write_sample
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.evaluation import evaluate
from SAMFineTuneLib.geometry.axes import array_axis
from SAMFineTuneLib.geometry.shape_interpolation import interpolate
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Labelmap, read_labelmap

_SLICES_SHOWN = 5
_PICTURES = 20


def main(arguments: list[str] | None = None) -> int:
    """Runs the demonstration; returns the exit code of the first command that fails, else 0."""
    parser = argparse.ArgumentParser(prog="python -m SAMFineTuneLib.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument("--steps", type=int, default=300, help="of the fine-tune (default: 300)")
    options = parser.parse_args(arguments)
    folder: Path = options.output
    try:
        head = load_sample_head()
        shown = write_sample(head, folder, _SLICES_SHOWN)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    _print(f"1 of 4  A head from {folder / 'head.nii.gz'}; ventricles labelled on slices {shown}")
    _print("2 of 4  Fine-tune on these slices")
    code = _run(
        *("finetune", "--volume", folder / "head.nii.gz"),
        *("--segmentation", folder / "labelled.seg.nrrd", "--axis", "axial"),
        *("--empty", "outside", "--steps", options.steps),
        *("--output", folder / "ventricles.safetensors"),
    )
    if code == 0:
        _print("3 of 4  Segment the whole volume")
        code = _run(
            *("apply", "--model", folder / "ventricles.safetensors"),
            *("--volume", folder / "head.nii.gz", "--output", folder / "segmentation.seg.nrrd"),
            *("--drawn", folder / "labelled.seg.nrrd", "--empty", "outside"),
        )
    if code == 0:
        _print("4 of 4  Compare with the truth")
        _report(folder, head, shown)
    return code


def _run(*arguments: object) -> int:
    command_line = [str(each) for each in arguments]
    _print("$ python -m SAMFineTuneLib " + shlex.join(command_line))
    return subprocess.run(
        [sys.executable, "-m", "SAMFineTuneLib", *command_line],
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode


def _report(folder: Path, head: SampleHead, shown: list[int]) -> None:
    predicted = read_labelmap(folder / "segmentation.seg.nrrd", empty_ok=True)
    interpolated = _interpolated(head, shown)
    hidden = [number for number in range(shown[0], shown[-1] + 1) if number not in shown]
    metrics = {
        "labelled_slices": shown,
        "hidden_slices": hidden,
        "hidden": _scores(predicted, head.truth, hidden),
        "whole_volume": _scores(predicted, head.truth, None),
        "shape_interpolation_hidden": _scores(interpolated, head.truth, hidden),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    _draw(folder / "contact_sheet.png", head, predicted, shown, hidden)
    _print("                                   DSC    NSD at 2 mm")
    for name, text in (
        ("hidden", "slices that were not shown"),
        ("whole_volume", "whole volume"),
        ("shape_interpolation_hidden", "shape interpolation, not shown"),
    ):
        scores: Any = metrics[name]
        _print(f"  {text:31}  {scores['dsc']:.3f}  {scores['nsd']:.3f}")
    _print(f"Written to {folder}/: " + ", ".join(sorted(each.name for each in folder.iterdir())))


def _interpolated(head: SampleHead, shown: list[int]) -> Labelmap:
    kept = np.zeros_like(head.truth.array)
    kept[shown] = head.truth.array[shown]
    filled = interpolate(kept, 0, {VENTRICLES: shown}, head.truth.geometry.spacing[::-1])
    return Labelmap(filled, head.truth.geometry)


def _scores(
    predicted: Labelmap, truth: Labelmap, slices: list[int] | None
) -> dict[str, float | None]:
    report = evaluate(predicted, truth, [VENTRICLES], slices, "axial").to_json()
    return {"dsc": report["mean_dsc"], "nsd": report["mean_nsd"]}


def _draw(
    path: Path, head: SampleHead, predicted: Labelmap, shown: list[int], hidden: list[int]
) -> None:
    from SAMFineTuneLib.pictures.contact_sheet import SlicePanel, write_contact_sheet

    some = np.linspace(0, len(hidden) - 1, _PICTURES - len(shown)).round().astype(int)
    numbers = sorted({*shown, *(hidden[place] for place in some)})
    geometry = head.truth.geometry
    images, truths, found = (
        SliceStack(array, geometry, array_axis(geometry, "axial"))
        for array in (head.image, head.truth.array, predicted.array)
    )
    panels = [
        SlicePanel(
            f"slice {number}",
            images[number] / head.image.max(),
            truths[number],
            found[number],
            labelled=number in shown,
        )
        for number in numbers
    ]
    write_contact_sheet(path, panels, "lateral ventricles, learnt from the slices in frames")


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
