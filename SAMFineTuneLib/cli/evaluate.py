"""`evaluate`: a segmentation measured against a reference."""

from __future__ import annotations

import argparse

from SAMFineTuneLib.cli.arguments import (
    Commands,
    add_command,
    add_on_top,
    names_of_labels,
    numbers_or,
    option_name,
)
from SAMFineTuneLib.cli.execution import execute
from SAMFineTuneLib.files import path_from_text
from SAMFineTuneLib.jobs.schema import EvaluateJob, make_job

_DESCRIPTION = """\
Compare a segmentation with a reference: for each label the Dice similarity coefficient (DSC) and
the normalised surface distance (NSD) at a tolerance in mm, over the whole volume or over chosen
slices. A segmentation of another geometry is brought onto the grid of the reference.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib evaluate --prediction whole.nii.gz --reference truth.nii.gz \\
      --slices 3,4,5 --tolerance 2.0
"""


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(commands, "evaluate", _run, "measure DSC and NSD", _DESCRIPTION, _EXAMPLE)
    parser.add_argument(
        "--prediction",
        type=path_from_text,
        required=True,
        metavar="P",
        help="the segmentation to measure",
    )
    parser.add_argument(
        "--reference",
        type=path_from_text,
        required=True,
        metavar="R",
        help="the segmentation held for true",
    )
    parser.add_argument(
        "--labels",
        type=numbers_or("all"),
        default="all",
        metavar="all|1,5",
        help="the labels to measure (default: all that occur)",
    )
    parser.add_argument(
        "--label-names",
        type=names_of_labels,
        default={},
        metavar="1=liver,5=spleen",
        help="labels of one name are one structure, whatever their numbers; a number that is named "
        "here counts where the two files call it differently",
    )
    parser.add_argument(
        "--slices",
        type=numbers_or(),
        metavar="3,4,5",
        help="only these slices of the reference, counted from 0 along the axis",
    )
    parser.add_argument(
        "--axis",
        choices=("axial", "coronal", "sagittal"),
        default="axial",
        help="the axis that --slices count along (default: axial)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=2.0,
        metavar="MM",
        help="surfaces that are closer than this count as equal in the NSD (default: 2.0 mm)",
    )
    add_on_top(parser)
    parser.add_argument(
        "--output",
        type=path_from_text,
        metavar="METRICS.json",
        help="write the figures to this file too",
    )


def _run(chosen: argparse.Namespace) -> int:
    fields = {
        "prediction": chosen.prediction,
        "reference": chosen.reference,
        "labels": chosen.labels,
        "label_names": chosen.label_names,
        "slices": chosen.slices,
        "axis": chosen.axis,
        "tolerance_mm": chosen.tolerance,
        "on_top": chosen.on_top,
        "output": chosen.output,
    }
    return execute(make_job(EvaluateJob, fields, option_name), None)
