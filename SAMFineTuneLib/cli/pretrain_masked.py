"""`pretrain mae`: weights from unlabelled images, by a masked autoencoder."""

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
from SAMFineTuneLib.files import path_from_text

_DESCRIPTION = """\
Train the image encoder on unlabelled images (He et al. 2022, masked autoencoders): 75 % of each
image is masked, and the network learns to reconstruct it. The rest of the network stays as it is.
Volumes become slices, without blank ones. Run again with the same --folder, an interrupted
training is resumed. The folder gets a log and pictures of reconstructions.
"""
_EXAMPLES = """\
  python -m SAMFineTuneLib pretrain mae --images archive --folder work --output mae.safetensors
  torchrun --nproc-per-node 8 -m SAMFineTuneLib pretrain mae --images list.csv --backbone vit_b \\
      --batch 4 --accumulate 8 --device cuda --precision bf16 --folder work \\
      --output mae.safetensors
"""


def add_to(kinds: Commands) -> None:
    """Add this kind of pre-training."""
    parser = add_command(kinds, "mae", _run, "from unlabelled images", _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "--images",
        type=path_from_text,
        required=True,
        metavar="FOLDER|LIST",
        help="a folder, which is searched with all folders in it, or a text file that names an "
        "image or DICOM folder on each line",
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="go on without files that cannot be read, which are named",
    )
    add_places(parser)
    add_network(parser)
    parser.add_argument(
        "--epochs",
        type=count,
        default=100,
        help="how often each slice is learnt from (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes",
        type=positive,
        help="learn for so many minutes in all; the learning rate falls to 0 within them",
    )
    parser.add_argument(
        "--batch",
        type=count,
        default=16,
        help="slices at once in each process (default: %(default)s)",
    )
    parser.add_argument(
        "--accumulate",
        type=count,
        default=1,
        help="batches in each step of the optimiser (default: %(default)s)",
    )
    parser.add_argument(
        "--lr",
        type=positive,
        default=1.5e-4,
        help="learning rate for steps of 256 slices; other steps get it in proportion "
        "(default: %(default)s)",
    )
    add_computing(parser)


def _run(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.pretraining.masked.plan import MaskedChoices
    from SAMFineTuneLib.pretraining.masked.run import run_masked
    from SAMFineTuneLib.pretraining.starting_weights import StartingWeights

    require_places(chosen)
    found = run_masked(
        MaskedChoices(
            images=chosen.images,
            skip_unreadable=chosen.skip_unreadable,
            weights=StartingWeights(chosen.backbone, *chosen.weights),
            input_size=chosen.input_size,
            epochs=chosen.epochs,
            minutes=chosen.minutes,
            batch=chosen.batch,
            accumulate=chosen.accumulate,
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
