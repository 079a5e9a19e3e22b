"""Helpers of all commands: parsing of options, one-line errors, output in UTF-8."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import path_from_text
from SAMFineTuneLib.weights.weights_kind import WEIGHTS_KINDS
from SAMFineTuneLib.worker.json_text import to_json

Commands = Any  # the type that add_subparsers returns has no public name
# More slices or frames than any image has.
_LONGEST_RANGE = 100_000
REPEATED_ON_TOP = "; repeat it, or separate several by commas"


class CommandParser(argparse.ArgumentParser):
    """A parser that raises `InputError` instead of printing its whole usage."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for bad arguments.

        Raises:
            InputError: always.
        """
        raise InputError(message, f"See {self.prog} --help", code="usage")


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_line: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """A command with its help; `example` is a shell command line or several."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_line,
        description=description,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=run)
    return parser


def images_of_case(text: str) -> Path | list[Path]:
    """Reads a path, or the paths of several images of a case with + between them.

    Where a file or folder has the whole text as its name, this one is meant.
    """
    whole = path_from_text(text)
    parts = [part.strip() for part in text.split("+")]
    if len(parts) == 1 or whole.exists() or not all(parts):
        return whole
    return [path_from_text(part) for part in parts]


def first_images(cases: Sequence[Path | list[Path]]) -> list[Path]:
    """The first image of each case."""
    return [case[0] if isinstance(case, list) else case for case in cases]


def frames_of_volumes(volumes: int, frames: Sequence[int]) -> list[int | None]:
    """The frame of each volume: none, one for all, or one for each in their order.

    Raises:
        InputError: there are neither one nor as many as volumes.
    """
    if len(frames) in (0, 1):
        return [frames[0] if frames else None] * volumes
    if len(frames) != volumes:
        raise InputError(
            f"{len(frames)} --frame and {volumes} --volume do not pair",
            "Give one --frame for each --volume, in the same order, or one for all; the frame of "
            "a volume without an axis of time is 0",
            code="contrary_options",
        )
    return [*frames]


def numbers_or(*keywords: str) -> Callable[[str], str | list[int]]:
    """Reads one of the keywords, or whole numbers and ranges of them with commas between."""

    def read(text: str) -> str | list[int]:
        if text in keywords:
            return text
        try:
            return [number for part in text.split(",") for number in _range(part)]
        except ValueError:
            allowed = ", ".join([*keywords, "numbers such as 3,9,14 or 3,5-9"])
            raise argparse.ArgumentTypeError(f"{text!r} is none of: {allowed}") from None

    return read


def _range(text: str) -> range:
    """Reads a whole number, or the first and the last of several, such as 5-9."""
    first, dash, last = text.strip().partition("-")
    if first.isdecimal() and dash and last.isdecimal():
        if int(last) - int(first) not in range(_LONGEST_RANGE):
            raise ValueError(text)
        return range(int(first), int(last) + 1)
    return range(int(text), int(text) + 1)


def words_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Reads some of the known words, with commas between."""

    def read(text: str) -> list[str]:
        words = [word.strip() for word in text.split(",")]
        if not set(words) <= set(known) or len(set(words)) != len(words):
            raise argparse.ArgumentTypeError(f"{text!r} is not some of {','.join(known)}")
        return words

    return read


def names_of_labels(text: str) -> dict[int, str]:
    """Reads names of labels, such as 1=liver,2=spleen; names cannot contain a comma."""
    names: dict[int, str] = {}
    for part in text.split(","):
        number, equals, name = part.partition("=")
        if not (equals and number.strip().isdecimal() and name.strip()):
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form 1=liver,2=spleen")
        names[int(number)] = name.strip()
    return names


def merges_of_labels(text: str) -> dict[int, str | list[int]]:
    """Reads labels that count as one, such as 1+2=3,5+6=5 or all=1."""
    merges: dict[int, str | list[int]] = {}
    for pair in text.split(","):
        left, equals, new = pair.partition("=")
        parts = [part.strip() for part in left.split("+")]
        fits = parts == ["all"] or all(part.isdecimal() for part in parts)
        if not (equals and new.strip().isdecimal() and fits) or int(new) in merges:
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form 1+2=3,5+6=5 or all=1")
        merges[int(new)] = "all" if parts == ["all"] else [int(part) for part in parts]
    return merges


def kind_and_file(text: str) -> tuple[str, Path]:
    """Reads what weights were trained as, and their file, such as medsam:medsam_vit_b.pth."""
    kind, colon, file = text.partition(":")
    if not colon or kind not in WEIGHTS_KINDS or not file.strip():
        allowed = ", ".join(WEIGHTS_KINDS)
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND:FILE with KIND one of {allowed}")
    return kind, path_from_text(file)


def number_or(*keywords: str) -> Callable[[str], str | int]:
    """Reads one of the keywords, or a whole number."""

    def read(text: str) -> str | int:
        try:
            return text if text in keywords else int(text)
        except ValueError:
            allowed = " nor ".join([*keywords, "a number"])
            raise argparse.ArgumentTypeError(f"{text!r} is neither {allowed}") from None

    return read


def option_name(field: str) -> str:
    """The option of the command line for a field of a job."""
    renamed = {
        "learning_rate": "lr",
        "tolerance_mm": "tolerance",
        "volumes": "volume",
        "image_list": "list",
    }
    stem = field.rsplit(".", 1)[-1].split("[")[0]
    return "--" + renamed.get(stem, stem).replace("_", "-")


def utf8_streams() -> None:
    """Set the output streams to UTF-8, so that any file name can be printed on every console."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def print_result(result: object) -> None:
    """Print the result, which is all that a command writes on standard output."""
    print(to_json(result), flush=True)


def print_message(text: str) -> None:
    """Print a message for the user on standard error."""
    print(text, file=sys.stderr, flush=True)
