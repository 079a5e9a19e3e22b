"""`finetune`: makes a tuned model from a few labelled slices."""

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
    kind_and_file,
    merges_of_labels,
    option_name,
)
from SAMFineTuneLib.cli.execution import execute
from SAMFineTuneLib.cli.field_option import add_field, chosen_fields
from SAMFineTuneLib.cli.place_options import add_places
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import path_from_text
from SAMFineTuneLib.heads.names import HEADS
from SAMFineTuneLib.jobs.schema import Example, FinetuneJob, make_job, read_examples
from SAMFineTuneLib.jobs.series_choice import series_of_volumes
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.training.presets import PRESETS
from SAMFineTuneLib.weights.weights_kind import WEIGHTS_KINDS

_DESCRIPTION = """\
Fine-tune a network on the labelled slices of one or more volumes, and write the tuned model,
one file that `apply` uses. Volumes are NIfTI, NRRD, MetaImage files, DICOM folders or pictures
(PNG, JPEG, TIFF, BMP); a segmentation may be on another grid than its volume as long as it lies
over it. The mask of a picture has its size: grey values, a palette, or a colour for each structure.

Slices are numbered from 0 along the axis, in the index order of the volume's file. Of a volume with
an axis of time (4-D NIfTI, .seq.nrrd, DICOM series) --frame says which frame was labelled.
Ctrl-C cancels; the job is kept, and the last line says how to continue it.
"""
_EXAMPLE = """\
  python -m SAMFineTuneLib finetune --volume ct.nii.gz --segmentation few-slices.nii.gz \\
      --labels 1,5 --output spleen-and-liver.safetensors

  several volumes, each with its own choice of slices, in examples.json:
  [{"volume": "a.nii.gz", "segmentation": "a-labels.nii.gz", "labelled": [12], "empty": [2, 30]},
   {"volume": "b.nii.gz", "segmentation": "b-labels.nii.gz", "labels": [1], "axis": "axial"}]
  python -m SAMFineTuneLib finetune --examples examples.json --output model.safetensors

  a data set, with an image and its mask on each line of train.csv and val.csv:
  python -m SAMFineTuneLib finetune --list train.csv --validation-list val.csv \\
      --output model.safetensors
"""
_EXAMPLE_FIELDS = ("labels", "axis", "labelled", "empty", "extent", "on_top", "merge")
# Those that say nothing of a list.
_OF_VOLUMES = ("axis", "labelled", "empty", "extent", "on_top")


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
    of_each: dict[str, Any] = {"action": "append", "required": False}
    add_field(
        data,
        Example,
        "volume",
        metavar="V[+V2[+V3]]",
        more="; repeat it, with a --segmentation for each; where a case has several images, such "
        "as T1 and FLAIR, name all of them with + between, in the same order for all cases",
        type=images_of_case,
        **of_each,
    )
    add_field(
        data,
        Example,
        "series",
        metavar="N|UID",
        more="; repeat it, one for each folder, or give one for all",
        **of_each,
    )
    add_field(data, Example, "segmentation", metavar="S", **of_each)
    add_field(
        data,
        Example,
        "frame",
        metavar="N",
        more="; repeat it, one for each volume, or give one for all",
        **of_each,
    )
    data.add_argument(
        "--examples",
        type=path_from_text,
        metavar="EXAMPLES.json",
        help="instead of --volume and --segmentation: a list of objects with volume, segmentation "
        "and, where they differ from the options, labels, axis, labelled, empty, extent, on_top, "
        "merge; also series; frame; channels, a list of further images of the case; group, a name "
        "that examples of one patient share, which are then held out together; label_names, "
        "an object of numbers and names that replace those in the segmentation; and complete, "
        "unfinished, known_empty, lists of slices on which every label is complete, on which "
        "labels do not count, and which hold no label",
    )
    add_field(data, FinetuneJob, "image_list", metavar="TRAIN.csv")
    add_field(data, FinetuneJob, "validation_list", metavar="VAL.csv")
    add_field(data, FinetuneJob, "images", metavar="FOLDER")
    add_field(data, FinetuneJob, "skip_unreadable")
    add_field(
        data,
        FinetuneJob,
        "unlabelled",
        metavar="V[+V2[+V3]]",
        more="; repeat it for each",
        type=images_of_case,
    )
    add_field(data, FinetuneJob, "unlabelled_examples", action=argparse.BooleanOptionalAction)
    add_field(data, Example, "labels", metavar="all|1,5")
    add_field(data, FinetuneJob, "label_names", metavar="1=liver,5=spleen")
    add_field(data, Example, "merge", metavar="1+2=3|all=1", type=merges_of_labels)
    add_field(data, Example, "axis")
    add_field(data, Example, "labelled", metavar="nonempty|3,9,14")
    add_field(data, Example, "empty", metavar="auto|outside|none|0,1")
    add_field(data, Example, "extent", metavar=("FIRST", "LAST"))
    add_field(data, Example, "on_top", metavar="NAME_OR_LABEL", more=REPEATED_ON_TOP)


def _add_network(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("what learns")
    presets: dict[str, str] = {name: f"for {each.summary}" for name, each in PRESETS.items()}
    add_field(network, FinetuneJob, "preset", told=presets)
    backbones = {name: spec.description for name, spec in BACKBONES.items()}
    add_field(network, FinetuneJob, "backbone", told=backbones)
    add_field(network, FinetuneJob, "checkpoint", metavar="FILE", more="; see checkpoints --help")
    network.add_argument(
        "--initial-weights",
        type=kind_and_file,
        metavar="KIND:FILE",
        help="instead of --checkpoint: the file of the backbone's weights, and what they were "
        f"trained as, one of {', '.join(WEIGHTS_KINDS)}. It decides how pixels are normalised: "
        "from 0 to 1 for medsam, as for Segment Anything for sam, sslsam and supsam, and as usual "
        "for the backbone for own",
    )
    add_field(network, FinetuneJob, "weights")
    add_field(network, FinetuneJob, "initial_model", metavar="M.safetensors")
    add_field(network, FinetuneJob, "go_on")
    add_field(network, FinetuneJob, "method")
    add_field(network, FinetuneJob, "scope")
    add_field(network, FinetuneJob, "rank", metavar="R")
    add_places(network)
    add_field(network, FinetuneJob, "input_size", metavar="auto|PIXELS")
    heads: dict[str, str] = {name: each.summary for name, each in HEADS.items()}
    add_field(network, FinetuneJob, "head", told=heads, metavar="auto|HEAD")
    add_field(network, FinetuneJob, "head_depth", metavar="D")


def _add_training(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("how it is trained")
    add_field(training, FinetuneJob, "output", metavar="M.safetensors")
    add_field(training, FinetuneJob, "prompts")
    add_field(training, FinetuneJob, "prompt_mode")
    add_field(training, FinetuneJob, "steps", metavar="N")
    add_field(training, FinetuneJob, "minutes", metavar="M")
    add_field(training, FinetuneJob, "batch", metavar="B")
    add_field(training, FinetuneJob, "learning_rate", metavar="R")
    add_field(training, FinetuneJob, "validation")
    add_field(training, FinetuneJob, "tensorboard", metavar="FOLDER")
    add_field(training, FinetuneJob, "seed", metavar="SEED")
    add_field(training, FinetuneJob, "device", metavar="auto|cpu|cuda|mps")
    training.add_argument(
        "--job",
        type=path_from_text,
        metavar="DIR",
        help="keep the job's folder here; if DIR holds the same job, stopped before its end, the "
        "job is continued",
    )


def _run(chosen: argparse.Namespace) -> int:
    fields = chosen_fields(chosen, FinetuneJob)
    if chosen.image_list is not None:
        _refuse_contrary(chosen)
        fields.pop("examples", None)
    else:
        _refuse_without_list(chosen)
        for name in ("labels", "merge"):
            fields.pop(name, None)
        fields["examples"] = _examples(chosen)
    if chosen.initial_weights is not None:
        if chosen.checkpoint is not None:
            raise InputError(
                "--initial-weights and --checkpoint exclude each other",
                "give one of them",
                code="contrary_options",
            )
        fields["weights_kind"], fields["checkpoint"] = chosen.initial_weights
    return execute(make_job(FinetuneJob, fields, option_name), chosen.job)


def _refuse_contrary(chosen: argparse.Namespace) -> None:
    """Refuses options beside --list that are for volumes."""
    defaults = {
        name: Example.model_fields[name].get_default(call_default_factory=True)
        for name in _EXAMPLE_FIELDS
    }
    given = [
        option_name(name)
        for name in ("volume", "segmentation", "series", "frame", "examples", *_OF_VOLUMES)
        if getattr(chosen, name) not in (None, defaults.get(name))
    ]
    if given:
        raise InputError(
            f"--list excludes {', '.join(given)}",
            "Give either --list or the others; masks of a list are complete",
            code="contrary_options",
        )


def _refuse_without_list(chosen: argparse.Namespace) -> None:
    for name in ("validation_list", "images", "skip_unreadable"):
        if getattr(chosen, name):
            raise InputError(
                f"{option_name(name)} goes with --list",
                "Give --list as well",
                code="contrary_options",
            )


def _examples(chosen: argparse.Namespace) -> list[Any]:
    shared = {name: getattr(chosen, name) for name in _EXAMPLE_FIELDS}
    volumes, segmentations = chosen.volume or [], chosen.segmentation or []
    if chosen.examples is not None:
        if volumes or segmentations or chosen.series or chosen.frame:
            raise InputError(
                "--examples excludes --volume, --series, --frame and --segmentation",
                "Give either --examples or the others",
                code="contrary_options",
            )
        return list(read_examples(chosen.examples, shared))
    if not volumes:
        raise InputError(
            "no volume to learn from",
            "Give --volume and --segmentation, --examples, or --list",
            code="no_volume",
        )
    if len(volumes) != len(segmentations):
        raise InputError(
            f"{len(volumes)} --volume and {len(segmentations)} --segmentation do not pair",
            "Give one --segmentation for each --volume, in the same order",
            code="contrary_options",
        )
    series = series_of_volumes(first_images(volumes), chosen.series or [])
    frames = frames_of_volumes(len(volumes), chosen.frame or [])
    return [
        {"volume": volume, "segmentation": labels, "series": own, "frame": frame, **shared}
        for volume, labels, own, frame in zip(volumes, segmentations, series, frames, strict=True)
    ]
