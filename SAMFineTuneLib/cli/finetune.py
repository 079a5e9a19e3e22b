"""`finetune`: a few labelled slices become a tuned model."""

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
    size_or_auto,
)
from SAMFineTuneLib.cli.execution import execute
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import path_from_text
from SAMFineTuneLib.jobs.schema import FinetuneJob, make_job, read_examples
from SAMFineTuneLib.jobs.series_choice import series_of_volumes

_DESCRIPTION = """\
Fine-tune a network on the labelled slices of one or more volumes, and write the tuned model,
one file that `apply` uses. Volumes are NIfTI, NRRD, MetaImage files or DICOM folders; a
segmentation may have another geometry than its volume as long as it lies over it.

Slice numbers count from 0 along the axis, in the index order of the volume's file.
Ctrl-C cancels; the job is kept, and the words at the end say how to continue it.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib finetune --volume ct.nii.gz --segmentation few-slices.nii.gz \\
      --labels 1,5 --output spleen-and-liver.safetensors

  several volumes, each with its own choice of slices, in examples.json:
  [{"volume": "a.nii.gz", "segmentation": "a-labels.nii.gz", "labelled": [12], "empty": [2, 30]},
   {"volume": "b.nii.gz", "segmentation": "b-labels.nii.gz", "labels": [1], "axis": "axial"}]
  python -m SAMFineTuneLib finetune --examples examples.json --output model.safetensors
"""
_EXAMPLE_FIELDS = ("labels", "axis", "labelled", "empty", "extent", "on_top")


def add_to(commands: Commands) -> None:
    """Add the command with its options."""
    parser = add_command(
        commands, "finetune", _run, "learn from a few labelled slices", _DESCRIPTION, _EXAMPLE
    )
    _add_data(parser)
    _add_network(parser)
    _add_training(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("what to learn from")
    data.add_argument(
        "--volume",
        action="append",
        type=path_from_text,
        metavar="V",
        help="image file or DICOM folder; repeat it, with a --segmentation for each",
    )
    data.add_argument(
        "--series",
        action="append",
        metavar="N|UID",
        help="which series of a DICOM folder with several, by its number in the list that is shown "
        "without this option, or by its UID; repeat it, one for each folder, or give one for all",
    )
    data.add_argument(
        "--segmentation",
        action="append",
        type=path_from_text,
        metavar="S",
        help="labels of the volume: an image file, a DICOM segmentation (SEG), DICOM contours "
        "(RTSTRUCT), or a folder with one of these two",
    )
    data.add_argument(
        "--examples",
        type=path_from_text,
        metavar="EXAMPLES.json",
        help="in place of the two: a list of objects with volume, segmentation and, where they "
        "differ from the options, labels, axis, labelled, empty, extent, on_top; also series; "
        "label_names, an object of numbers and names in place of those in the segmentation; and "
        "complete, unfinished, known_empty, lists of slices on which every label is complete, on "
        "which none counts, and which hold none",
    )
    data.add_argument(
        "--labels",
        type=numbers_or("all"),
        default="all",
        metavar="all|1,5",
        help="the labels to learn (default: all that occur)",
    )
    data.add_argument(
        "--label-names",
        type=names_of_labels,
        metavar="1=liver,5=spleen",
        help="names of structures, by their number in the results: those of the first example that "
        "has them, or of the model that is gone on from. Labels of one name are one structure in "
        "all examples; a number that is named here also counts where an example calls it otherwise",
    )
    data.add_argument(
        "--axis",
        choices=("auto", "axial", "coronal", "sagittal"),
        default="auto",
        help="how to cut the volume (default: auto, along the widest spacing, else the axis on "
        "which the labels lie)",
    )
    data.add_argument(
        "--labelled",
        type=numbers_or("nonempty"),
        default="nonempty",
        metavar="nonempty|3,9,14",
        help="nonempty (default): each label counts on the slices that show it, and is unknown on "
        "slices between that show only others; a list: slices on which every label is complete",
    )
    data.add_argument(
        "--empty",
        type=numbers_or("auto", "outside", "none"),
        default="auto",
        metavar="auto|outside|none|0,1",
        help="slices known to hold none of the labels: outside, all beyond the labelled range; "
        "auto (default), those less a margin as wide as the largest gap between labelled slices, "
        "and nothing where only one slice is labelled; none; or a list",
    )
    data.add_argument(
        "--extent",
        type=int,
        nargs=2,
        metavar=("FIRST", "LAST"),
        help="the first and the last slice that hold any of the labels: all beyond are empty, "
        "whatever the words of --empty say",
    )
    add_on_top(data)


def _add_network(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("what learns")
    network.add_argument(
        "--preset",
        choices=("laptop", "study", "full"),
        default="laptop",
        help="sets what is not given: laptop (default), minutes on two CPU cores; study, as in "
        "the published study of few-shot fine-tuning; full, for whole data sets on a GPU",
    )
    network.add_argument(
        "--backbone",
        choices=("starter", "vit_t", "vit_b", "vit_l", "vit_h"),
        default="starter",
        help="starter (default), small; vit_t, MobileSAM; vit_b, vit_l, vit_h, Segment Anything",
    )
    network.add_argument(
        "--checkpoint",
        type=path_from_text,
        metavar="FILE",
        help="weights of the backbone (default: those of the program for starter, else the "
        "official ones; see checkpoints --help)",
    )
    network.add_argument(
        "--weights",
        choices=("pretrained", "random"),
        default="pretrained",
        help="random: begin with a network that has learnt nothing, for comparison or where the "
        "weights cannot be had",
    )
    network.add_argument(
        "--initial-model",
        type=path_from_text,
        metavar="M.safetensors",
        help="go on from this tuned model in place of starting anew",
    )
    network.add_argument(
        "--method",
        choices=("auto", "adapter", "lora", "vanilla"),
        default="auto",
        help="what is trained: small adapters, low-rank updates, or (vanilla) the weights "
        "themselves; auto (default): adapters, and all weights of the starter network, whose "
        "decoder begins anew",
    )
    network.add_argument(
        "--scope",
        choices=("auto", "encoder_decoder", "decoder"),
        default="auto",
        help="in the mask decoder alone, or (default) in the image encoder too",
    )
    network.add_argument(
        "--rank", type=int, default=4, metavar="R", help="rank of the low-rank updates (default: 4)"
    )
    network.add_argument(
        "--input-size",
        type=size_or_auto,
        default="auto",
        metavar="auto|PIXELS",
        help="side of the network's square input, 256 to 1024 (default: auto)",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("how long and how")
    training.add_argument(
        "--output",
        type=path_from_text,
        required=True,
        metavar="M.safetensors",
        help="the tuned model",
    )
    training.add_argument(
        "--prompts",
        action="store_true",
        help="then also tune a copy of the network for points and boxes, with which its results "
        "are corrected; takes about two thirds as long again",
    )
    training.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="optimiser steps (default: the preset's; naming one of --steps and --minutes lifts "
        "the preset's limit of the other)",
    )
    training.add_argument("--minutes", type=float, metavar="M", help="time for the optimiser steps")
    training.add_argument("--batch", type=int, metavar="B", help="slices in a step")
    training.add_argument("--lr", type=float, metavar="R", help="peak learning rate")
    training.add_argument(
        "--validation",
        choices=("auto", "none"),
        default="auto",
        help="auto (default) keeps some volumes or slices aside, measures on them, and keeps the "
        "weights that do best where they are enough to tell; none trains on all",
    )
    training.add_argument(
        "--seed", type=int, default=0, help="same seed, same model on a CPU (default: 0)"
    )
    training.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|mps", help="where to compute"
    )
    training.add_argument(
        "--job",
        type=path_from_text,
        metavar="DIR",
        help="keep the job's folder here; DIR of the same job that was stopped continues it",
    )


def _run(chosen: argparse.Namespace) -> int:
    fields = {
        name: getattr(chosen, name)
        for name in FinetuneJob.model_fields
        if getattr(chosen, name, None) is not None and name != "examples"
    }
    if chosen.lr is not None:
        fields["learning_rate"] = chosen.lr
    job = make_job(FinetuneJob, {**fields, "examples": _examples(chosen)}, option_name)
    return execute(job, chosen.job)


def _examples(chosen: argparse.Namespace) -> list[Any]:
    shared = {name: getattr(chosen, name) for name in _EXAMPLE_FIELDS}
    volumes, segmentations = chosen.volume or [], chosen.segmentation or []
    if chosen.examples is not None:
        if volumes or segmentations or chosen.series:
            raise InputError(
                "--examples takes the place of --volume, --series and --segmentation",
                "Give either",
                code="contrary_options",
            )
        return list(read_examples(chosen.examples, shared))
    if not volumes:
        raise InputError(
            "no volume to learn from",
            "Give --volume and --segmentation, or --examples",
            code="no_volume",
        )
    if len(volumes) != len(segmentations):
        raise InputError(
            f"{len(volumes)} --volume and {len(segmentations)} --segmentation do not pair",
            "Give one --segmentation for each --volume, in the same order",
            code="contrary_options",
        )
    series = series_of_volumes(volumes, chosen.series or [])
    return [
        {"volume": volume, "segmentation": segmentation, "series": own, **shared}
        for volume, segmentation, own in zip(volumes, segmentations, series, strict=True)
    ]
