"""`apply`: a tuned model segments whole volumes."""

from __future__ import annotations

import argparse
from typing import Any

from SAMFineTuneLib.cli.arguments import (
    REPEATED_ON_TOP,
    Commands,
    add_command,
    first_images,
    frames_of_volumes,
    images_of_case,
    numbers_or,
    option_name,
)
from SAMFineTuneLib.cli.execution import execute
from SAMFineTuneLib.cli.field_option import add_field, chosen_fields
from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import path_from_text
from SAMFineTuneLib.jobs.schema import ApplyJob, Example, make_job, read_examples
from SAMFineTuneLib.jobs.series_choice import series_of_volumes

_DESCRIPTION = """\
Segment whole volumes with a tuned model. The segmentation has the volume's own geometry and the
label numbers that the model was trained with. In a folder, masks of pictures are written as PNG, or
as TIFF for TIFF. An image with an axis of time (4-D NIfTI, .seq.nrrd, DICOM series) is segmented
frame by frame, and the result has the same axis.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib apply --model liver.safetensors --volume ct.nii.gz \\
      --output whole.nii.gz --uncertainty uncertainty.nii.gz
  a volume on which some slices are drawn already; these are kept, and help between them:
  python -m SAMFineTuneLib apply --model liver.safetensors --volume ct.nii.gz \\
      --drawn few-slices.nii.gz --output whole.nii.gz
  python -m SAMFineTuneLib apply --model liver.safetensors --volume a.nii.gz --volume dicom/ \\
      --output segmentations/
"""


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(commands, "apply", _run, "segment volumes", _DESCRIPTION, _EXAMPLE)
    add_field(parser, ApplyJob, "model", metavar="M.safetensors")
    add_field(
        parser,
        ApplyJob,
        "volumes",
        metavar="V[+V2[+V3]]",
        more="; repeat it for several; for a model of several images, name all images of a case "
        "with + between, in the model's order",
        type=images_of_case,
    )
    add_field(parser, ApplyJob, "image_list", metavar="IMAGES.csv")
    add_field(parser, ApplyJob, "images", metavar="FOLDER")
    add_field(parser, ApplyJob, "skip_unreadable")
    add_field(parser, ApplyJob, "series", metavar="N|UID", more="; repeat it")
    add_field(parser, ApplyJob, "frames", metavar="0,3,5-9")
    add_field(parser, ApplyJob, "output", metavar="OUT")
    add_field(
        parser,
        ApplyJob,
        "drawn",
        metavar="S",
        action="append",
        type=path_from_text,
        more="; repeat it, one for each --volume",
    )
    add_field(
        parser,
        Example,
        "frame",
        metavar="N",
        action="append",
        help="on which frame of its volume --drawn was drawn, counted from 0; repeat it, one for "
        "each volume, or give one for all",
    )
    parser.add_argument(
        "--examples",
        type=path_from_text,
        metavar="EXAMPLES.json",
        help="instead of --drawn: the examples of the fine-tune; examples of other volumes are "
        "ignored",
    )
    add_field(
        parser,
        Example,
        "label_names",
        metavar="1=liver,5=spleen",
        help="names of the drawn labels, by their numbers in the drawn segmentation: a label with "
        "a name is the model's structure of that name, any other that of its number",
    )
    absence = parser.add_argument_group(
        "for volumes with --drawn or --examples",
        "The model decides where a structure is absent, unless it is stated here.",
    )
    add_field(
        absence,
        Example,
        "empty",
        type=numbers_or("outside", "none"),
        default="none",
        metavar="outside|none|0,1",
        help="slices that hold none of the labels: outside, all beyond the drawn range of each; "
        "none; or a list (default: none)",
    )
    add_field(absence, Example, "extent", metavar=("FIRST", "LAST"))
    add_field(absence, Example, "on_top", metavar="NAME_OR_LABEL", more=REPEATED_ON_TOP)
    add_field(parser, ApplyJob, "uncertainty", metavar="U")
    add_field(parser, ApplyJob, "largest_component")
    add_field(parser, ApplyJob, "tidy", action=argparse.BooleanOptionalAction)
    add_field(parser, ApplyJob, "checkpoint", metavar="FILE")
    add_field(parser, ApplyJob, "batch", metavar="B")
    add_field(parser, ApplyJob, "device", metavar="auto|cpu|cuda|mps")
    parser.add_argument(
        "--job", type=path_from_text, metavar="DIR", help="keep the job's folder here"
    )


def _run(chosen: argparse.Namespace) -> int:
    fields = chosen_fields(chosen, ApplyJob) | {"drawn": _drawn(chosen)}
    return execute(make_job(ApplyJob, fields, option_name), chosen.job)


def _drawn(chosen: argparse.Namespace) -> list[Any]:
    """The slices of the volumes that are drawn already, as fields of `Example`."""
    stated = {
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
        return read_examples(chosen.examples, stated)
    drawn = chosen.drawn or []
    stated_of_drawn = (chosen.extent is not None, chosen.empty != "none", chosen.on_top)
    if not drawn and (any(stated_of_drawn) or chosen.frame):
        raise InputError(
            "--empty, --extent, --on-top and --frame are for slices that are drawn, and none are "
            "given",
            "give them with --drawn",
            code="contrary_options",
        )
    volumes = first_images(chosen.volumes or [])
    if drawn and len(drawn) != len(volumes):
        raise InputError(
            f"{counted(len(volumes), 'volume')} but {counted(len(drawn), 'time')} --drawn",
            "give one for each --volume, in the same order, or --examples",
            code="contrary_options",
        )
    series = series_of_volumes(volumes, chosen.series)
    frames = frames_of_volumes(len(volumes), chosen.frame or [])
    return [
        {"volume": volume, "segmentation": labels, "series": own, "frame": frame, **stated}
        for volume, labels, own, frame in zip(volumes, drawn, series, frames, strict=False)
    ]
