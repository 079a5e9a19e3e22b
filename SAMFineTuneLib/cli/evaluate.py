"""`evaluate`: measures a segmentation against a reference."""

from __future__ import annotations

import argparse

from SAMFineTuneLib.cli.arguments import (
    REPEATED_ON_TOP,
    Commands,
    add_command,
    merges_of_labels,
    option_name,
)
from SAMFineTuneLib.cli.execution import execute
from SAMFineTuneLib.cli.field_option import add_field, chosen_fields
from SAMFineTuneLib.jobs.schema import EvaluateJob, make_job

_DESCRIPTION = """\
Compare a segmentation with a reference: for each label the Dice similarity coefficient (DSC), the
intersection over union (IoU), the normalised surface distance (NSD) at a tolerance in mm and the
95th-percentile Hausdorff distance (HD95) in mm, over the whole volume or over chosen slices.
A segmentation on another grid is resampled onto the grid of the reference. Segmentations with an
axis of time are compared frame by frame.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib evaluate --prediction whole.nii.gz --reference truth.nii.gz \\
      --slices 3,4,5 --tolerance 2.0
  all images of a list, with their masks, that apply --list has segmented:
  python -m SAMFineTuneLib evaluate --list test.csv --predictions segmentations/ \\
      --output table.csv
"""


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(
        commands, "evaluate", _run, "measure DSC, IoU, NSD and HD95", _DESCRIPTION, _EXAMPLE
    )
    add_field(parser, EvaluateJob, "prediction", metavar="P")
    add_field(parser, EvaluateJob, "reference", metavar="R")
    add_field(parser, EvaluateJob, "image_list", metavar="PAIRS.csv")
    add_field(parser, EvaluateJob, "predictions", metavar="FOLDER")
    add_field(parser, EvaluateJob, "images", metavar="FOLDER")
    add_field(parser, EvaluateJob, "skip_unreadable")
    add_field(parser, EvaluateJob, "labels", metavar="all|1,5")
    add_field(parser, EvaluateJob, "label_names", metavar="1=liver,5=spleen")
    add_field(parser, EvaluateJob, "slices", metavar="3,4,5")
    add_field(parser, EvaluateJob, "frames", metavar="0,3,5-9")
    add_field(parser, EvaluateJob, "merge", metavar="1+2=3|all=1", type=merges_of_labels)
    add_field(parser, EvaluateJob, "axis")
    add_field(parser, EvaluateJob, "tolerance_mm", metavar="MM")
    add_field(parser, EvaluateJob, "on_top", metavar="NAME_OR_LABEL", more=REPEATED_ON_TOP)
    add_field(parser, EvaluateJob, "output", metavar="METRICS.json|TABLE.csv")


def _run(chosen: argparse.Namespace) -> int:
    return execute(make_job(EvaluateJob, chosen_fields(chosen, EvaluateJob), option_name), None)
