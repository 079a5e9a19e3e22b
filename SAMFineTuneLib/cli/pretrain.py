"""`pretrain`: trains the starter weights on synthetic images."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from SAMFineTuneLib.cli.arguments import Commands, add_command, print_message, print_result
from SAMFineTuneLib.files import path_from_text
from SAMFineTuneLib.jobs.folder import require_writable, require_writable_file
from SAMFineTuneLib.jobs.schema import MOST_MINUTES

_DESCRIPTION = """\
Train the starter network from random weights, on synthetic images alone: to find structures from
prompts, and to find in some images the structures that are labelled in others. Run again with the
same --folder, an interrupted training is resumed; with more --steps a finished one is continued.
"""
_EXAMPLES = """\
  python -m SAMFineTuneLib pretrain prompts --folder pretraining --output starter.safetensors
  torchrun --nproc-per-node 8 -m SAMFineTuneLib pretrain prompts --device cuda \\
      --precision bf16 --folder pretraining --output starter.safetensors
"""
# The network halves an image four times, so sizes are multiples of 16; images below 64 pixels show
# too little of an anatomy.
_SIZES = range(64, 1025, 16)
# PyTorch's random generators take seeds below this.
_SEEDS = 2**63


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "pretrain",
        _run,
        "train the starter network on synthetic images",
        _DESCRIPTION,
        _EXAMPLES,
    )
    parser.add_argument("task", choices=("prompts",), help="what to train: the starter weights")
    parser.add_argument("--output", type=_weights, required=True, help="the weights (.safetensors)")
    parser.add_argument(
        "--folder", type=path_from_text, required=True, help="where the state and the log are kept"
    )
    parser.add_argument(
        "--initial",
        type=path_from_text,
        metavar="FILE",
        help="weights of an earlier training to begin with, in a new --folder",
    )
    parser.add_argument(
        "--steps", type=_count, default=20_000, help="steps in all (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=_positive, help="stop after so many minutes")
    parser.add_argument(
        "--episodes", type=_count, default=2, help="episodes in each step of each process"
    )
    parser.add_argument(
        "--images", type=_count, default=8, help="images in an episode of 160 pixels"
    )
    parser.add_argument(
        "--sizes", type=_size, nargs="+", default=[128, 160, 192, 256], help="sides of the images"
    )
    parser.add_argument("--lr", type=_positive, default=2e-3, help="learning rate")
    parser.add_argument(
        "--decay", type=_share, default=0.3, help="share of the steps in which it falls to 0"
    )
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument(
        "--device", type=_device, default="auto", help="auto (default), cpu, cuda, mps"
    )
    parser.add_argument(
        "--snapshots", type=_count, metavar="IMAGES", help="keep the weights every so many images"
    )


def _run(chosen: argparse.Namespace) -> int:
    from SAMFineTuneLib.pretraining.plan import PretrainingPlan
    from SAMFineTuneLib.pretraining.run import run_pretraining
    from SAMFineTuneLib.pretraining.saved import STATE_FILE

    # Checked now, and not only after days of training.
    require_writable(chosen.folder / STATE_FILE)
    require_writable_file(chosen.output)
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


def _number(
    read: Callable[[str], float], fits: Callable[[float], bool], what: str
) -> Callable[[str], float]:
    """Reads a number with `read` and checks it with `fits`; `what` describes allowed numbers."""

    def checked(text: str) -> float:
        try:
            number = read(text)
        except ValueError:
            number = float("nan")
        # NaN does not fit, because every comparison with it is false.
        if not fits(number):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return number

    return checked


_MOST = 10**9
_count = _number(int, lambda number: 1 <= number <= _MOST, f"a whole number from 1 to {_MOST}")
_seed = _number(int, lambda number: 0 <= number < _SEEDS, "a whole number from 0 on")
_size = _number(
    int,
    lambda number: number in _SIZES,
    f"a multiple of {_SIZES.step} from {_SIZES[0]} to {_SIZES[-1]}",
)
_positive = _number(
    float, lambda number: 0 < number <= MOST_MINUTES, f"a number above 0, at most {MOST_MINUTES:g}"
)
_share = _number(float, lambda number: 0 <= number <= 1, "a share from 0 to 1")


def _weights(text: str) -> Path:
    if not text.lower().endswith(".safetensors"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .safetensors")
    return Path(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of: auto, cpu, cuda, cuda:1, mps")
    return text
