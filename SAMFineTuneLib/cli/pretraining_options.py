"""Options that the kinds of pre-training share, and how their values are checked."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from SAMFineTuneLib.cli.arguments import kind_and_file
from SAMFineTuneLib.files import path_from_text
from SAMFineTuneLib.jobs.folder import require_writable, require_writable_file
from SAMFineTuneLib.jobs.schema import MOST_MINUTES
from SAMFineTuneLib.networks.spec import BACKBONES
from SAMFineTuneLib.weights.weights_kind import WEIGHTS_KINDS

# PyTorch's random generators take seeds below this.
_SEEDS = 2**63
_MOST = 10**9


def checked_number(
    read: Callable[[str], float], fits: Callable[[float], bool], what: str
) -> Callable[[str], Any]:
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


count = checked_number(
    int, lambda number: 1 <= number <= _MOST, f"a whole number from 1 to {_MOST}"
)
seed = checked_number(int, lambda number: 0 <= number < _SEEDS, "a whole number from 0 on")
positive = checked_number(
    float, lambda number: 0 < number <= MOST_MINUTES, f"a number above 0, at most {MOST_MINUTES:g}"
)
share = checked_number(float, lambda number: 0 <= number <= 1, "a share from 0 to 1")


def safetensors_path(text: str) -> Path:
    """Reads the name of a file of weights to write."""
    if not text.lower().endswith(".safetensors"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .safetensors")
    return Path(text)


def device_name(text: str) -> str:
    """Reads the name of a device."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of: auto, cpu, cuda, cuda:1, mps")
    return text


def starting_weights(text: str) -> tuple[str, Path | None]:
    """Reads the weights to begin with: what they are, and their file where one is named."""
    if text in ("official", "random"):
        return text, None
    if text.partition(":")[0] in WEIGHTS_KINDS:
        return kind_and_file(text)
    return "own", path_from_text(text)


def add_places(parser: argparse.ArgumentParser) -> None:
    """The file of the weights, and the folder of the state."""
    parser.add_argument(
        "--output", type=safetensors_path, required=True, help="the weights (.safetensors)"
    )
    parser.add_argument(
        "--folder", type=path_from_text, required=True, help="where the state and the log are kept"
    )


def require_places(chosen: argparse.Namespace) -> None:
    """Checks that the state and the weights can be written, and not only after days of training.

    Raises:
        InputError: one of them cannot.
    """
    from SAMFineTuneLib.pretraining.saved import STATE_FILE

    require_writable(chosen.folder / STATE_FILE)
    require_writable_file(chosen.output)


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Random numbers, precision and device."""
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument(
        "--device", type=device_name, default="auto", help="auto (default), cpu, cuda, mps"
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """The backbone, its input, and the weights to begin with."""
    parser.add_argument(
        "--backbone", choices=tuple(BACKBONES), default="starter", help="default: %(default)s"
    )
    parser.add_argument(
        "--weights",
        type=starting_weights,
        default=("official", None),
        metavar="official|random|FILE",
        help="what to begin with: the weights that come with the program or were fetched "
        "(default), random ones, or a file; KIND:FILE as for finetune --initial-weights",
    )
    parser.add_argument(
        "--input-size",
        type=count,
        metavar="PIXELS",
        help="side of the images (default: that of the backbone)",
    )
