"""How the command line is read: lists of numbers, one-line errors, UTF-8."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.worker.json_text import to_json

Commands = Any  # what add_subparsers returns has no public name
REPEATED_ON_TOP = "; repeat it, or put commas between, for several"


class CommandParser(argparse.ArgumentParser):
    """A parser that raises `InputError` in place of printing its whole usage."""

    def error(self, message: str) -> NoReturn:
        """Bad arguments.

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


def numbers_or(*words: str) -> Callable[[str], str | list[int]]:
    """Reads one of the words, or whole numbers with commas between them."""

    def read(text: str) -> str | list[int]:
        if text in words:
            return text
        try:
            return [int(part) for part in text.split(",")]
        except ValueError:
            allowed = ", ".join([*words, "numbers such as 3,9,14"])
            raise argparse.ArgumentTypeError(f"{text!r} is none of: {allowed}") from None

    return read


def names_of_labels(text: str) -> dict[int, str]:
    """Reads names of labels, such as 1=liver,2=spleen; a name has no comma."""
    names: dict[int, str] = {}
    for part in text.split(","):
        number, equals, name = part.partition("=")
        if not (equals and number.strip().isdecimal() and name.strip()):
            raise argparse.ArgumentTypeError(f"{text!r} is not as 1=liver,2=spleen")
        names[int(number)] = name.strip()
    return names


def number_or(*words: str) -> Callable[[str], str | int]:
    """Reads one of the words, or a whole number."""

    def read(text: str) -> str | int:
        try:
            return text if text in words else int(text)
        except ValueError:
            allowed = " nor ".join([*words, "a number"])
            raise argparse.ArgumentTypeError(f"{text!r} is neither {allowed}") from None

    return read


def option_name(field: str) -> str:
    """How the command line names a field of a job."""
    renamed = {"learning_rate": "lr", "tolerance_mm": "tolerance", "volumes": "volume"}
    stem = field.rsplit(".", 1)[-1].split("[")[0]
    return "--" + renamed.get(stem, stem).replace("_", "-")


def utf8_streams() -> None:
    """Print any file name, whatever the console's code page."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def print_result(result: object) -> None:
    """The one thing that a command writes on standard output."""
    print(to_json(result), flush=True)


def say(text: str) -> None:
    """Words for the person at the shell."""
    print(text, file=sys.stderr, flush=True)
