"""`pretrain synthetic`: trains the starter weights on synthetic images."""

from __future__ import annotations

import argparse

from SAMFineTuneLib.cli.arguments import Commands, add_command, print_message, print_result
from SAMFineTuneLib.cli.pretraining_options import (
    add_computing,
    add_places,
    checked_number,
    count,
    positive,
    require_places,
    share,
)
from SAMFineTuneLib.files import path_from_text

_DESCRIPTION = """\
Train the starter network from random weights, on synthetic images alone: to find structures from
prompts, and to find in some images the structures that are labelled in others. Run again with the
same --folder, an interrupted training is resumed; with more --steps a finished one is continued.
"""
_EXAMPLES = """\
  python -m SAMFineTuneLib pretrain synthetic --folder pretraining --output starter.safetensors
  torchrun --nproc-per-node 8 -m SAMFineTuneLib pretrain synthetic --device cuda \\
      --precision bf16 --folder pretraining --output starter.safetensors
"""
# The network halves an image four times, so sizes are multiples of 16; images below 64 pixels show
# too little of an anatomy.
_SIZES = range(64, 1025, 16)
_size = checked_number(
    int,
    lambda number: number in _SIZES,
    f"a multiple of {_SIZES.step} from {_SIZES[0]} to {_SIZES[-1]}",
)


def add_to(kinds: Commands) -> None:
    """Add this kind of pre-training."""
    parser = add_command(
        kinds,
        "synthetic",
        _run,
        "the starter network, on synthetic images",
        _DESCRIPTION,
        _EXAMPLES,
    )
    add_places(parser)
    parser.add_argument(
        "--initial",
        type=path_from_text,
        metavar="FILE",
        help="weights of an earlier training to begin with, in a new --folder",
    )
    parser.add_argument(
        "--steps", type=count, default=20_000, help="steps in all (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=positive, help="stop after so many minutes")
    parser.add_argument(
        "--episodes", type=count, default=2, help="episodes in each step of each process"
    )
    parser.add_argument(
        "--images", type=count, default=8, help="images in an episode of 160 pixels"
    )
    parser.add_argument(
        "--sizes", type=_size, nargs="+", default=[128, 160, 192, 256], help="sides of the images"
    )
    parser.add_argument("--lr", type=positive, default=2e-3, help="learning rate")
    parser.add_argument(
        "--decay", type=share, default=0.3, help="share of the steps in which it falls to 0"
    )
    add_computing(parser)
    parser.add_argument(
        "--snapshots", type=count, metavar="IMAGES", help="keep the weights every so many images"
    )


def _run(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.pretraining.synthetic.plan import PretrainingPlan
    from SAMFineTuneLib.pretraining.synthetic.run import run_pretraining

    require_places(chosen)
    plan = PretrainingPlan(
        steps=chosen.steps,
        episodes=chosen.episodes,
        images=chosen.images,
        sizes=tuple(chosen.sizes),
        learning_rate=chosen.lr,
        decay=chosen.decay,
        seed=chosen.seed,
        precision=chosen.precision,
    )
    found = run_pretraining(
        plan,
        chosen.folder,
        chosen.output,
        chosen.device,
        chosen.minutes,
        chosen.snapshots,
        chosen.initial,
        print_message,
    )
    if found is not None:
        print_result(found)
    return 0
