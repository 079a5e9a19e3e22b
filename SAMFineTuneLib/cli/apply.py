"""`apply`: a tuned model segments whole volumes."""

from __future__ import annotations

import argparse
from typing import Any

from SAMFineTuneLib.cli.arguments import (
    Commands,
    add_command,
    add_on_top,
    names_of_labels,
    numbers_or,
    option_name,
)
from SAMFineTuneLib.cli.execution import execute
from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import path_from_text
from SAMFineTuneLib.jobs.schema import ApplyJob, make_job, read_examples
from SAMFineTuneLib.jobs.series_choice import series_of_volumes

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
        "--model",
        type=path_from_text,
        required=True,
        metavar="M.safetensors",
        help="what finetune wrote",
    )
    parser.add_argument(
        "--volume",
        action="append",
        type=path_from_text,
        required=True,
        metavar="V",
        help="image file or DICOM folder; repeat it for several",
    )
    parser.add_argument(
        "--series",
        action="append",
        metavar="N|UID",
        help="which series of a DICOM folder with several, by its number in the list that is shown "
        "without this option, or by its UID; repeat it, one for each folder, or give one for all",
    )
    parser.add_argument(
        "--output",
        type=path_from_text,
        required=True,
        metavar="OUT",
        help="a file (.nii.gz .nii .nrrd .seg.nrrd .mha .mhd; .dcm for a DICOM volume: a DICOM "
        "segmentation that belongs to its series), or a folder, as for several volumes",
    )
    parser.add_argument(
        "--drawn",
        action="append",
        type=path_from_text,
        metavar="S",
        help="labels of the volume on the slices that are drawn already: they are kept, and what "
        "lies between them follows their shape, too; repeat it, one for each --volume",
    )
    parser.add_argument(
        "--examples",
        type=path_from_text,
        metavar="EXAMPLES.json",
        help="in place of --drawn: the examples of the fine-tune; those of other volumes count for "
        "nothing",
    )
    parser.add_argument(
        "--label-names",
        type=names_of_labels,
        default={},
        metavar="1=liver,5=spleen",
        help="what the labels are called that are drawn, by their number there: by its name a "
        "label is found in the model, else by its number",
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
    add_on_top(absence)
    parser.add_argument(
        "--uncertainty",
        type=path_from_text,
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
        type=path_from_text,
        metavar="FILE",
        help="weights of the backbone on which the model was tuned, where they are not in the "
        "cache",
    )
    parser.add_argument("--batch", type=int, metavar="B", help="slices computed at once")
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|mps", help="where to compute"
    )
    parser.add_argument(
        "--job", type=path_from_text, metavar="DIR", help="keep the job's folder here"
    )


def _run(chosen: argparse.Namespace) -> int:
    fields = {
        "model": chosen.model,
        "volumes": chosen.volume,
        "series": chosen.series or [],
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
    said = {
        "empty": chosen.empty,
        "extent": chosen.extent,
        "label_names": chosen.label_names,
        "on_top": chosen.on_top,
    }
    if chosen.examples is not None:
        if chosen.drawn:
            raise InputError(
                "--examples and --drawn exclude each other",
                "give one of them",
                code="contrary_options",
            )
        return read_examples(chosen.examples, said)
    drawn = chosen.drawn or []
    if not drawn and (chosen.extent is not None or chosen.empty != "none" or chosen.on_top):
        raise InputError(
            "--empty, --extent and --on-top speak of slices that are drawn, and none are named",
            "name them with --drawn",
            code="contrary_options",
        )
    if drawn and len(drawn) != len(chosen.volume):
        raise InputError(
            f"{counted(len(chosen.volume), 'volume')} but {counted(len(drawn), 'time')} --drawn",
            "give one for each --volume, in the same order, or --examples",
            code="contrary_options",
        )
    series = series_of_volumes(chosen.volume, chosen.series or [])
    return [
        {"volume": volume, "segmentation": labels, "series": own, **said}
        for volume, labels, own in zip(chosen.volume, drawn, series, strict=False)
    ]
