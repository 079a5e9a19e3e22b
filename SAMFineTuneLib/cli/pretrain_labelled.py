"""`pretrain prompts`: weights from several labelled data sets, by prompts drawn from the masks."""

from __future__ import annotations

import argparse

from SAMFineTuneLib.cli.arguments import Commands, add_command, print_message, print_result
from SAMFineTuneLib.cli.pretraining_options import (
    add_computing,
    add_network,
    add_places,
    count,
    positive,
    require_places,
)
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import path_from_text

_DESCRIPTION = """\
Train image encoder and mask decoder on several labelled data sets, as the study's SupSAM was: one
random object of each slice is found from a box or a point for each of its regions. It stops when
the validation does not improve for five epochs. Run again with the same --folder, an interrupted
training is resumed.
"""
_EXAMPLES = """\
  python -m SAMFineTuneLib pretrain prompts --list liver.csv --list heart.csv --folder work \\
      --output prompts.safetensors
"""


def add_to(kinds: Commands) -> None:
    """Add this kind of pre-training."""
    parser = add_command(
        kinds,
        "prompts",
        _run,
        "from labelled data sets, by prompts",
        _DESCRIPTION,
        _EXAMPLES,
    )
    parser.add_argument(
        "--list",
        dest="lists",
        action="append",
        type=path_from_text,
        metavar="LIST",
        help="a list of images and masks, as for finetune --list; repeat it for each data set",
    )
    parser.add_argument(
        "--validation-list",
        dest="validation_lists",
        action="append",
        default=[],
        type=path_from_text,
        metavar="LIST",
        help="a list to measure on; repeat it (default: a tenth of the images of each --list)",
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="go on without files that cannot be read, which are named",
    )
    add_places(parser)
    add_network(parser)
    parser.add_argument(
        "--epochs", type=count, default=100, help="at most so many (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=positive, help="stop after so many minutes in all")
    parser.add_argument(
        "--patience",
        type=count,
        default=5,
        help="epochs without improvement after which it stops (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=count,
        default=3,
        help="slices in each step of each process (default: %(default)s)",
    )
    parser.add_argument(
        "--lr", type=positive, default=1e-4, help="learning rate (default: %(default)s)"
    )
    add_computing(parser)


def _run(chosen: argparse.Namespace) -> int:
    if not chosen.lists:
        raise InputError(
            "no --list of labelled images to learn from",
            "Give one --list for each data set; the starter's training on synthetic images is "
            "pretrain synthetic",
            code="usage",
        )
    from SAMFineTuneLib.pretraining.labelled.plan import LabelledChoices
    from SAMFineTuneLib.pretraining.labelled.run import run_labelled
    from SAMFineTuneLib.pretraining.starting_weights import StartingWeights

    require_places(chosen)
    found = run_labelled(
        LabelledChoices(
            lists=tuple(chosen.lists),
            validation_lists=tuple(chosen.validation_lists),
            skip_unreadable=chosen.skip_unreadable,
            weights=StartingWeights(chosen.backbone, *chosen.weights),
            input_size=chosen.input_size,
            epochs=chosen.epochs,
            minutes=chosen.minutes,
            patience=chosen.patience,
            batch=chosen.batch,
            learning_rate=chosen.lr,
            seed=chosen.seed,
            precision=chosen.precision,
        ),
        chosen.folder,
        chosen.output,
        chosen.device,
        print_message,
    )
    if found is not None:
        print_result(found)
    return 0
