"""`apply`: a tuned model segments whole volumes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from SAMFineTuneLib.cli.arguments import (
    Commands,
    add_command,
    numbers_or,
    option_name,
)
from SAMFineTuneLib.cli.execution import execute
from SAMFineTuneLib.counted_words import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.jobs.schema import ApplyJob, make_job, read_examples

_DESCRIPTION = """\
Segment whole volumes with a tuned model. The segmentation has the volume's own geometry and the
label numbers that the model was trained with.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib apply --model liver.safetensors --volume ct.nii.gz \\
      --output whole.nii.gz --uncertainty uncertainty.nii.gz
  the volume of which some slices are drawn: these stay, and help between them:
  python -m SAMFineTuneLib apply --model liver.safetensors --volume ct.nii.gz \\
      --drawn few-slices.nii.gz --output whole.nii.gz
  python -m SAMFineTuneLib apply --model liver.safetensors --volume a.nii.gz --volume dicom/ \\
      --output segmentations/
"""


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(commands, "apply", _run, "segment volumes", _DESCRIPTION, _EXAMPLE)
    parser.add_argument(
        "--model", type=Path, required=True, metavar="M.safetensors", help="what finetune wrote"
    )
    parser.add_argument(
        "--volume",
        action="append",
        type=Path,
        required=True,
        metavar="V",
        help="image file or DICOM folder; repeat it for several",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="a file (.nii.gz .nii .nrrd .seg.nrrd .mha .mhd), or a folder, as for several volumes",
    )
    parser.add_argument(
        "--drawn",
        action="append",
        type=Path,
        metavar="S",
        help="labels of the volume on the slices that are drawn already: they are kept, and what "
        "lies between them follows their shape, too; repeat it, one for each --volume",
    )
    parser.add_argument(
        "--examples",
        type=Path,
        metavar="EXAMPLES.json",
        help="in place of --drawn: the examples of the fine-tune; those of other volumes count for "
        "nothing",
    )
    absence = parser.add_argument_group(
        "of the volumes with --drawn or --examples",
        "Where a structure is not is for the model to say, unless it is said here.",
    )
    absence.add_argument(
        "--empty",
        type=numbers_or("outside", "none"),
        default="none",
        metavar="outside|none|0,1",
        help="slices that hold none of the labels: outside, all beyond the drawn range of each; "
        "none (default); or a list",
    )
    absence.add_argument(
        "--extent",
        type=int,
        nargs=2,
        metavar=("FIRST", "LAST"),
        help="the first and the last slice that hold any of the labels: all beyond are empty",
    )
    parser.add_argument(
        "--uncertainty",
        type=Path,
        metavar="U",
        help="also write how uncertain the model is of each voxel, of those drawn, too: a file, or "
        "a folder for several volumes",
    )
    parser.add_argument(
        "--largest-component",
        action="store_true",
        help="keep only the largest connected part of each label",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights of the backbone on which the model was tuned, where they are not in the "
        "cache",
    )
    parser.add_argument("--batch", type=int, metavar="B", help="slices computed at once")
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|mps", help="where to compute"
    )
    parser.add_argument("--job", type=Path, metavar="DIR", help="keep the job's folder here")


def _run(chosen: argparse.Namespace) -> int:
    fields = {
        "model": chosen.model,
        "volumes": chosen.volume,
        "output": chosen.output,
        "uncertainty": chosen.uncertainty,
        "drawn": _drawn(chosen),
        "largest_component": chosen.largest_component,
        "checkpoint": chosen.checkpoint,
        "batch": chosen.batch,
        "device": chosen.device,
    }
    return execute(make_job(ApplyJob, fields, option_name), chosen.job)


def _drawn(chosen: argparse.Namespace) -> list[Any]:
    """What is drawn already of the volumes."""
    said = {"empty": chosen.empty, "extent": chosen.extent}
    if chosen.examples is not None:
        if chosen.drawn:
            raise InputError(
                "--examples and --drawn exclude each other",
                "give one of them",
                code="contrary_options",
            )
        return read_examples(chosen.examples, said)
    drawn = chosen.drawn or []
    if not drawn and (chosen.extent is not None or chosen.empty != "none"):
        raise InputError(
            "--empty and --extent speak of slices that are drawn, and none are named",
            "name them with --drawn",
            code="contrary_options",
        )
    if drawn and len(drawn) != len(chosen.volume):
        raise InputError(
            f"{counted(len(chosen.volume), 'volume')} but {counted(len(drawn), 'time')} --drawn",
            "give one for each --volume, in the same order, or --examples",
            code="contrary_options",
        )
    return [
        {"volume": volume, "segmentation": labels, **said}
        for volume, labels in zip(chosen.volume, drawn, strict=False)
    ]
